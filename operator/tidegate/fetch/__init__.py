"""The fetch init container: downloads a model, verifies it and lays out a Triton repository.

The modules, by idea:

* `request`: what is asked for (``fetch.json``), `main`: run it and report by termination message.
* `source`: one small port (list, read a range), one module a scheme.
* `address`: which hosts and addresses may be connected to; stands under every library's sockets.
* `download`: parallel, resumable, hashing while writing; `retry`, `progress`.
* `archive`, `digest`, `probe`, `layout`, `config`: from bytes to a model folder.
* `repository`: writes the folder; `cache`: a shared claim; `errors`: every way to fail.
"""
