"""Python building and dropping dictionaries, lists, strings and objects, with
every object from malloc."""

import shutil
from pathlib import Path

SCRIPT = Path(__file__).with_name("python_work.py")


def missing():
    return None if shutil.which("python3") else "python3"


def prepare(context):
    pass


def run(context, library):
    command = ["python3", "-s", "-S", str(SCRIPT), str(context.amount(100)), str(context.seed)]
    return context.run(command, library, PYTHONMALLOC="malloc", PYTHONHASHSEED="0")
