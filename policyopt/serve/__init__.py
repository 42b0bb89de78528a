"""A Tinker server on the local model: clients of the ``tinker`` package train adapters on it and draw from them.

The modules from below: :mod:`refused` what a client did wrong; :mod:`wire` bytes to numbers and back; :mod:`losses`;
:mod:`seats` many adapters on one model; :mod:`trained` one model in training; :mod:`drawing`; :mod:`store` what outlives the
process; :mod:`desk` the queue and the results; :mod:`service` what requests mean; :mod:`app` routes; :mod:`server` the process.
"""
