"""Triton kernels, one file per operator; installed as ``abpn_fast.kernels``."""
