"""An exchange that speaks Alpaca's wire on loopback: REST, order stream, and faults on demand.

It exists so that alpaca-py and Ordinis' own adapter run unchanged in the demo, in tests and in a
rehearsal of production. It knows nothing of the rest of Ordinis and must never import it, nor
Django; nobody imports it but its own command and the tests. `docs/simulator.md` describes its
control address.
"""
