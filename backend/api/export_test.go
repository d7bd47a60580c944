package api

// A Line is one line of the routes table, for tests that walk it.
type Line struct {
	Method, Path, Verb, Kind, Rate, ID string
	Body                               int64
	Ticketed                           bool
}

// Table is the routes table.
func Table() (lines []Line) {
	for _, r := range routes() {
		lines = append(lines, Line{
			Method: r.method, Path: r.path, Verb: string(r.verb), Kind: string(r.kind), Rate: string(r.rate),
			ID: r.id, Body: r.body, Ticketed: r.ticketed(),
		})
	}
	return lines
}
