"""The optional second compilation: with ``TULLE_COMPILE=1`` the modules that each request runs through become C.

mypyc compiles them as they are (docs/decisions/0011). Everything else of the build is said in ``pyproject.toml``. What
is not asked for costs nothing: without the variable neither mypy nor a compiler is needed. Who asks for it is told of
every failure; nothing is left out in silence.
"""

import os
from typing import Any

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import SetupError

COMPILED = {
    "cluster": ("breaker", "cluster", "host", "outcome"),
    "http1": ("chunked", "errors"),
    "http2": ("frames", "limits", "resets", "session"),
    "model": ("connection", "stats"),
    "route": ("edits", "match"),
    "runtime": ("entry", "runtime"),
    "stream": (
        "arrival",
        "attempts",
        "client",
        "connection",
        "downstream",
        "edge",
        "exchange",
        "http2",
        "state",
    ),
    "upstream": ("connection", "http2", "loop_state", "pool", "retry", "stream"),
}
"""Modules of ``proxy`` by their package. Heads are not among them: there are three classes of that name, of which the
types show one. Nor are the codec's events, which are those of the engine that is chosen at the start."""

BUILT = "build/compiled"
"""Apart from what other builds make in this tree: setuptools packs all that it finds there."""


class BuildExt(build_ext):
    """Adds the extensions of mypyc to those of ``pyproject.toml``."""

    def finalize_options(self) -> None:
        self.distribution.ext_modules = [*(self.distribution.ext_modules or ()), *_extensions()]
        super().finalize_options()

    def run(self) -> None:
        if self.inplace or self.editable_mode:
            raise SetupError("TULLE_COMPILE: a compiled module would hide every change of its source")
        super().run()


def _extensions() -> list[Any]:
    from mypyc.build import mypycify

    paths = [f"proxy/{package}/{name}.py" for package, names in COMPILED.items() for name in names]
    # Types are judged by ``make lint``: here the stubs of other packages are not installed.
    types = ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent"]
    # In one file of C the compiler takes four times as long.
    return mypycify(
        [*types, *paths],
        group_name="tulle",
        multi_file=True,
        opt_level="2",
        debug_level="0",
        target_dir=f"{BUILT}/mypyc",
    )


if os.environ.get("TULLE_COMPILE") == "1":
    setup(
        cmdclass={"build_ext": BuildExt},
        options={"build": {"build_base": BUILT}},
        setup_requires=["mypy[mypyc]==2.4.1"],
    )
else:
    setup()
