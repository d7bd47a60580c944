package api

// A Line is one line of the routes table, for tests that walk it.
type Line struct {
	Method, Path, Verb, Kind, Rate, ID string
	Body                               int64
}

// Table is the routes table.
func Table() (lines []Line) {
	for _, r := range routes() {
		lines = append(lines, Line{
			Method: r.method, Path: r.path, Verb: string(r.verb), Kind: string(r.kind), Rate: string(r.rate),
			ID: r.id, Body: r.body,
		})
	}
	return lines
}

// PublishMetrics makes and queues a frame of every topic, as each second does.
func (s *Server) PublishMetrics() {
	for _, t := range metricTopics {
		s.live.publish(t)
	}
}

// PublishEvent queues an event.
func (s *Server) PublishEvent(objects ...string) { s.live.event(objects) }

// Subscribers is how many clients have the events of the live stream.
func (s *Server) Subscribers() int { return len(s.live.subscribers("events")) }
