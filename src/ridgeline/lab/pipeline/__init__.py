"""The pipeline diagram of a recording: requests are rows and steps are columns, as processors' pipelines are drawn."""
