"""Programs of Debian's that are only compared with: used as they are installed, else fetched by apt-get download, as any
user, and unpacked below MMR_WORK. Nothing is installed on the machine."""
import glob
import os
import shutil
import subprocess

from .server import BINDIR, WORK


class Extras:
    """root is where unpacked packages are, as if it were /."""

    def __init__(self):
        self.root = os.path.join(WORK, "extras")
        self._lib = self._config("--pkglibdir")
        self._share = os.path.join(self._config("--sharedir"), "extension")
        self._tried = {}

    @staticmethod
    def _config(option):
        return subprocess.run(
            [os.path.join(BINDIR, "pg_config"), option], check=True, capture_output=True, text=True
        ).stdout.strip()

    def need(self, *packages, server_files=(), files=()):
        """Sees that packages are here; None, or why not. server_files: names that the private server must have then;
        files: paths of which each must be below / or below root."""
        why = None
        if not self._have(server_files, files):
            for package in packages:
                why = why or self._unpack(package)
            self._into_server()
            if not why and not self._have(server_files, files):
                why = f"{', '.join(packages)} did not bring what was expected"
        return why

    def path(self, file):
        """Where a file of a package is: unpacked, or installed."""
        unpacked = self.root + file
        return unpacked if os.path.exists(unpacked) else file

    def _have(self, server_files, files):
        in_server = all(
            os.path.exists(os.path.join(self._share if f.endswith(".control") else self._lib, f)) for f in server_files
        )
        return in_server and all(os.path.exists(self.path(f)) for f in files)

    def _unpack(self, package):
        if package not in self._tried:
            self._tried[package] = self._fetch(package)
        return self._tried[package]

    def _fetch(self, package):
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            return f"{package} is not installed, and this is not Debian"
        debs = os.path.join(WORK, "debs", package)
        os.makedirs(debs, exist_ok=True)
        try:
            done = subprocess.run(
                ["apt-get", "-q", "download", package], cwd=debs, capture_output=True, text=True, check=False, timeout=120
            )
        except subprocess.TimeoutExpired:
            return f"{package} could not be downloaded in time"
        found = glob.glob(os.path.join(debs, "*.deb"))
        if done.returncode != 0 or not found:
            return f"{package} is not installed and could not be downloaded"
        subprocess.run(["dpkg-deb", "-x", found[0], self.root], check=True)
        return None

    def _into_server(self):
        """A server looks for its libraries and extensions in its own directories."""
        for lib in glob.glob(os.path.join(self.root, "usr/lib/postgresql/*/lib/*.so")):
            shutil.copy(lib, self._lib)
        for file in glob.glob(os.path.join(self.root, "usr/share/postgresql/*/extension/*")):
            shutil.copy(file, self._share)
