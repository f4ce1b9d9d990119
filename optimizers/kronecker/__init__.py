"""Kronecker-factored preconditioning, shared by Shampoo and SOAP."""
