"""Dense network in, octave network out."""

from octvideo.convert.octavize import octavize
from octvideo.convert.plan import ConvPlan, OctavePlan, plan_octaves

__all__ = ["ConvPlan", "OctavePlan", "octavize", "plan_octaves"]
