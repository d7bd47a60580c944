package volume

import "testing"

// The simulation is only worth what it catches: each rule left out is noticed
// within a bounded number of seeds.
func TestSimulationCatchesMistakes(t *testing.T) {
	const bound = 200
	for _, c := range []struct {
		name  string
		plant mistakes
	}{
		{"acknowledge before the drop is committed", mistakes{ackEarly: true}},
		{"skip the promise", mistakes{skipPromise: true}},
		{"serve before the takeover has copied", mistakes{serveEarly: true}},
		{"fill overwrites newer", mistakes{fillOverwrites: true}},
		{"delta ignores the returning side", mistakes{deltaOneSided: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := uint64(1); seed <= bound; seed++ {
				if what, _ := simulate(t, seed, defaultProfile(seed), c.plant); what != "" {
					t.Logf("caught by seed %d: %.300s", seed, what)
					return
				}
			}
			t.Fatalf("not caught by %d seeds", bound)
		})
	}
}
