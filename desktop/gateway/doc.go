// Package gateway is the way from the desktop app's page to its clusters. The page
// cannot reach them itself: a webview does not trust a cluster's own CA. So it
// talks plain HTTP and websockets to a listener on 127.0.0.1, and the gateway
// carries that to the clusters over TLS pinned to each one's CA.
//
//	/desk/v1/...          the app's own API: clusters, probe
//	/c/{cluster}/api/v1/  the API of one cluster, as every node serves it
//
// Whoever talks to the gateway must know the token of this launch, come from an
// allowed origin, and name the gateway by its own address, so that neither another
// page in some browser nor a rebound DNS name gets through. Tokens of clusters
// never reach the page.
//
// A cluster is reached by any of its nodes: one that does not answer is left out
// for a while, and the next one is tried.
package gateway
