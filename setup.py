"""What pyproject.toml cannot say: a built regkit has the learner's notebooks, the glossary and its pictures with it."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithCourse(build_py):
    """The usual build, and the course in regkit/course/tutorials (`regkit lab` opens a copy of it)."""

    def run(self):
        super().run()
        if self.editable_mode:  # the clone has them
            return
        source, target = Path("tutorials"), Path(self.build_lib, "regkit", "course", "tutorials")
        for kind in ("*.ipynb", "*.md", "glossary/*.png"):
            for path in source.glob(kind):
                place = target / path.relative_to(source)
                self.mkpath(str(place.parent))
                self.copy_file(str(path), str(place))


setup(cmdclass={"build_py": WithCourse})
