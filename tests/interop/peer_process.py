"""Runs one official Asherah SDK; started by ``peers.py`` in an environment of the SDK's own.

Reads one JSON object a line, ``{"do": "encrypt" | "decrypt", "partition": str, "data": base64 | DRR}``, and answers
each with ``{"data": …}`` or ``{"error": …}``. The first line of its input is the SDK's configuration.
"""

import base64
import json
import sys


class Rust:
    """The Rust core: ``asherah`` 0.5."""

    def __init__(self, config):
        import asherah

        self.factory = asherah.SessionFactory(config)
        self.sessions = {}

    def session(self, partition):
        if partition not in self.sessions:
            self.sessions[partition] = self.factory.get_session(partition)
        return self.sessions[partition]

    def encrypt(self, partition, data):
        return self.session(partition).encrypt_bytes(data)

    def decrypt(self, partition, record):
        return self.session(partition).decrypt_bytes(record)


class Go:
    """The Go core: ``asherah`` 0.3."""

    def __init__(self, config):
        from asherah import Asherah

        class Config:
            service_name = config["ServiceName"]
            product_id = config["ProductID"]

            def to_json(self):
                return config

        self.asherah = Asherah()
        self.asherah.setup(Config())

    def encrypt(self, partition, data):
        return self.asherah.encrypt(partition, data)

    def decrypt(self, partition, record):
        return bytes(self.asherah.decrypt(partition, record))


def answer(core, request):
    if request["do"] == "encrypt":
        return core.encrypt(request["partition"], base64.b64decode(request["data"]))
    return base64.b64encode(core.decrypt(request["partition"], request["data"])).decode()


def main():
    core = None
    for line in sys.stdin:
        try:
            request = json.loads(line)
            if core is None:
                core = {"rust": Rust, "go": Go}[sys.argv[1]](request)
                reply = {"data": "ready"}
            else:
                reply = {"data": answer(core, request)}
        except BaseException as exc:
            reply = {"error": f"{type(exc).__name__}: {exc}"}
        print("\x1e" + json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
