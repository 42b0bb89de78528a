"""Controllers: what changes a field of the recipe between steps."""

from policyopt.control.schedule import Schedule
from policyopt.control.thermostat import Thermostat

__all__ = ["Schedule", "Thermostat"]
