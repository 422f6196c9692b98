"""Implicit behavioural cloning: energies, losses, samplers and the policy made of them."""

from agents.implicit_bc.config import ImplicitConfig
from agents.implicit_bc.dfo import DfoConfig
from agents.implicit_bc.langevin import LangevinConfig
from agents.implicit_bc.policy import ImplicitPolicy
from agents.implicit_bc.proposal import ProposalConfig

__all__ = ["DfoConfig", "ImplicitConfig", "ImplicitPolicy", "LangevinConfig", "ProposalConfig"]
