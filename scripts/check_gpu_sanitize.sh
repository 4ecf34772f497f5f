#!/bin/sh
# Own CUDA C++ (the calibration kernels, device/kernels_cuda.py) and the smallest parity cases of the Triton kernels under
# compute-sanitizer: memcheck, then racecheck. Skips with a reason where the tool or the GPU is missing.
#
#     scripts/check_gpu_sanitize.sh [TOOL ...]        default: memcheck racecheck
set -u
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python3}
tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [ -z "$tool" ]; then
    echo "skipped: compute-sanitizer is not installed (it comes with the CUDA toolkit)"
    exit 0
fi
if ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "skipped: torch sees no GPU"
    exit 0
fi
[ $# -gt 0 ] || set -- memcheck racecheck
code=0
for check in "$@"; do
    # PyTorch's allocator would hide a read beyond the end of a tensor inside one large allocation.
    PYTHONPATH=src PYTORCH_NO_CUDA_MEMORY_CACHING=1 "$tool" --tool "$check" --error-exitcode 9 --print-limit 20 \
        "$python" -m scripts.sanitized || code=1
done
exit $code
