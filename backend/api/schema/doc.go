// Package schema holds the objects of the API as they appear in JSON. The server
// writes them, the client reads them, and the committed files docs/openapi.json
// and docs/cli.schema.json follow from them.
//
// It holds data only: no server, no client, no I/O. Fields may be added in a
// version of the API and are never renamed or given another meaning. Sizes are
// integer bytes, times are RFC 3339, identifiers are text, and a list is never
// null.
package schema
