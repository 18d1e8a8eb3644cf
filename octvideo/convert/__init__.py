"""Dense network in, octave network out."""

from octvideo.convert.octavize import deoctavize, octavize
from octvideo.convert.plan import OctavePlan, plan_octaves
from octvideo.convert.planner import ConvPlan

__all__ = ["ConvPlan", "OctavePlan", "deoctavize", "octavize", "plan_octaves"]
