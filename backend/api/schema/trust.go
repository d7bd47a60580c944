package schema

import "time"

// A CA is the cluster's certificate authority.
type CA struct {
	Fingerprint string    `json:"fingerprint" doc:"of the root that signs"`
	Expires     time.Time `json:"expires"`
	Since       time.Time `json:"since" doc:"when it took over"`

	Former  string   `json:"former,omitempty" doc:"fingerprint of the root before, while it is still trusted"`
	Waiting []string `json:"waiting,omitempty" doc:"nodes that have only certificates by the root before"`
}

// A KeyPhase is what is being done to the gossip key.
type KeyPhase string

// The phases, complete and in order.
const (
	KeySettled KeyPhase = "settled" // there is one key
	KeyAdding  KeyPhase = "adding"  // the new one is understood, the old one is used
	KeyUsing   KeyPhase = "using"   // the new one is used, the old one is understood
)

// A GossipKey is the key that nodes hear each other by; the key itself is never shown.
type GossipKey struct {
	Phase   KeyPhase  `json:"phase" enum:"settled,adding,using"`
	Changed time.Time `json:"changed,omitzero" doc:"when the phase began; absent: never changed"`
	Waiting []string  `json:"waiting,omitempty" doc:"nodes that have not said that they are ready for the next phase"`
}
