"""What tests of whole runs through the command line share."""

import json

import parse_test_res


def status(folder):
    return json.loads((folder / "results.json").read_text())["status"]


def one_line(err, start="error: "):
    return err.startswith(start) and err.count("\n") == 1


def stopping(method, error, epoch=0):
    """``method``, and then an error once the epoch is the given one."""

    def after(self):
        method(self)
        if self.epoch == epoch:
            raise error

    return after


def parse(capsys, *argv):
    """Exit code, lines of stdout and stderr of parse_test_res.py."""
    code = parse_test_res.command([str(word) for word in argv])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err
