package main

import (
	"cmp"
	"fmt"

	"drystone.example/drystone/backend/api/schema"
)

func hardware(d schema.Disk) schema.Hardware {
	if d.Hardware == nil {
		return schema.Hardware{}
	}
	return *d.Hardware
}

// health is what the device thinks of itself; a file does not think.
func health(d schema.Disk) string { return cmp.Or(string(hardware(d).Health), "-") }

// mapCache says how full the cache of a page map is, and how often it had a page.
func mapCache(m *schema.MapCache) string {
	if m == nil {
		return "unknown"
	}
	text := fmt.Sprintf("%s of %s", size(m.Memory), size(m.Limit))
	if asked := m.Hits + m.Misses; asked > 0 {
		text += fmt.Sprintf(", %.1f%% of %d looks were hits", 100*float64(m.Hits)/float64(asked), asked)
	}
	return text
}
