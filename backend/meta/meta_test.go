package meta

import (
	"testing"

	"drystone.example/drystone/backend/model"
)

// Any node takes a change, and when it says so its own view and every
// linearizable view have it.
func TestApplyFromAnyNode(t *testing.T) {
	bubble(t, 3, func(t *testing.T, c *cluster) {
		for _, n := range c.nodes {
			got, ok := c.must(n, user("at-"+n.name)).(model.User)
			if !ok || got.Name != "at-"+n.name {
				t.Errorf("Apply at %s returned %v", n.name, got)
			}
			if _, err := n.Local().FindUser("at-" + n.name); err != nil {
				t.Errorf("the view of %s after its own Apply: %v", n.name, err)
			}
			for _, o := range c.nodes {
				v, err := o.View(t.Context())
				if err != nil {
					t.Fatalf("View at %s: %v", o.name, err)
				}
				if _, err := v.FindUser("at-" + n.name); err != nil {
					t.Errorf("View at %s after Apply at %s: %v", o.name, n.name, err)
				}
			}
		}
	})
}
