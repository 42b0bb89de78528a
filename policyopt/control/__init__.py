"""Controllers: what moves a field of a part between steps."""

from policyopt.control.average import MovingAverage
from policyopt.control.by_step import ByStep
from policyopt.control.first import FirstValue
from policyopt.control.follows import Follows
from policyopt.control.rounds import counting
from policyopt.control.schedule import Schedule
from policyopt.control.thermostat import Thermostat
from policyopt.part import Controller

__all__ = ["ByStep", "Controller", "FirstValue", "Follows", "MovingAverage", "Schedule", "Thermostat", "counting"]
