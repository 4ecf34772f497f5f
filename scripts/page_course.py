"""Write the course's questions, and what reference machines answered, for the page's Learn section.

python -m scripts.page_course            # rewrites server/web/course.json from the course and the run files in records/
python -m scripts.page_course --check    # says whether it is current
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from scripts.readme_table import COURSE, ROOT, load

from ridgeline.lab.learn.chapter import Chapter
from ridgeline.lab.learn.course import CHAPTERS

FILE = ROOT / "src" / "ridgeline" / "server" / "web" / "course.json"


def course() -> str:
    return json.dumps([_question(one) for one in CHAPTERS], indent=1, ensure_ascii=False) + "\n"


def _question(chapter: Chapter) -> dict[str, Any]:
    return {
        "number": chapter.number,
        "title": chapter.title,
        "question": chapter.question,
        "unit": chapter.unit,
        "hint": chapter.hint,
        "page": f"docs/learn/{chapter.page}",
        "answers": [_answer(load(f"{folder}/{chapter.number}.json"), machine) for folder, machine in COURSE],
    }


def _answer(run: dict[str, Any], machine: str) -> dict[str, Any]:
    results = run["results"]
    return {
        "machine": machine,
        "model": run["config"]["model"],
        "answer": float(f"{results['answer']:.4g}"),
        "told": results["told"][0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        current = FILE.exists() and FILE.read_text("utf-8") == course()
        sys.exit(0 if current else f"{FILE.name} is not what records/ say; run python -m scripts.page_course")
    FILE.write_text(course(), "utf-8")


if __name__ == "__main__":
    main()
