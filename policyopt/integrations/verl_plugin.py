"""Importing this registers with verl every method that its loop can serve: ``VERL_USE_EXTERNAL_MODULES`` takes its name."""

from policyopt.integrations.verl import register

register()
