package node

import (
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/virt"
)

// What an operator writes into node.json is judged before anything is started.
func TestMapMemoryIsChecked(t *testing.T) {
	c := Config{Cluster: 1, Node: 2, Name: "n1", Address: "10.0.0.1", Accelerator: virt.TCG}
	for bytes, ok := range map[model.Bytes]bool{0: true, 1 << 20: true, 1 << 30: true, 1<<20 - 1: false, -1: false} {
		c.MapMemory = bytes
		err := c.Validate()
		if ok != (err == nil) || !ok && !strings.Contains(err.Error(), "map_memory_bytes") {
			t.Errorf("Validate with %d: %v", bytes, err)
		}
	}
}
