// Package api answers people and programs: HTTP under /api/v1, the live stream
// and consoles over websockets, and the web page.
//
// Every route stands in one table (routes.go) with the verb it needs, the kind of
// object it touches, its rate class and its limits; nothing is served that is not
// in it. A request is authenticated, authorised, validated, and then either read
// from the record, written to it as a command that carries who asked, or handed
// to the Service. The package decides nothing about where things go and keeps no
// state but rate limits and the connections it serves.
package api
