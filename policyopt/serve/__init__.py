"""A Tinker server on the local model: clients of the ``tinker`` package train adapters on it and draw from them.

The modules from below: :mod:`refused`, what a client is told who cannot be served; :mod:`losses`; :mod:`wire`, bytes to numbers
and back; :mod:`seats`, many adapters on one model; :mod:`trained`, one model in training; :mod:`drawing`; :mod:`store`, what
outlives the process; :mod:`held`, the models in memory; :mod:`desk`, the queue and the results; :mod:`service`, what requests
mean; :mod:`listing` and :mod:`links`, what can be looked at and taken away; :mod:`app`, the routes; :mod:`server`, the process.
"""
