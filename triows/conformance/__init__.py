"""The conformance kit: checks any server, over the network, against docs/protocol.md.

`python -m triows.conformance ws://host:port/ws --secret-file secret` plays the test vectors of
docs/protocol and then runs the checks of `checks/`, which need the network or the right moment.
It knows nothing of the server of this package; docs/conformance.md says how to use it.
"""
