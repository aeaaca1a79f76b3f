"""``python -m abpn_fast`` is the command ``abpn-fast``."""

from abpn_fast.cli import app

if __name__ == "__main__":
    app(prog_name="abpn-fast")
