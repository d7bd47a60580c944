// Package pki is the cluster's root of trust: its certificate authority, the
// certificates of its nodes, their renewal, and the tokens by which a machine or
// a desktop comes to trust a cluster it has never seen.
//
// It decides who somebody is, never what they may do. A caller may rely on this:
// a private key leaves this package only into the node's own file (mode 0600) or
// sealed; no error, String or log line holds a secret; whatever comes from
// outside (requests, tokens, certificates) is data that may be hostile, and what
// it claims about itself is ignored but for its public key.
//
// Everything is ECDSA on P-256: Chromium refuses Ed25519 certificates.
package pki
