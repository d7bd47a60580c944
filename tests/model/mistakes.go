package model

// A Mistake is one rule left out.
type Mistake int

// The rules that can be left out. Each is looked for where it is used.
const (
	None Mistake = iota

	// Of writes, members and the takeover.
	AckEarly
	NoFence
	ServeEarly
	FillOverwrites
	NoBarrier
	DeltaOneSided
	CutoffHigh
	JoinWithoutPrepare
	Unordered
	FillNewer
	FillNewerAlways
	JoiningCutoff
	TakeoverCutoff
	RollMark
	FillContinues
	ForgetEarly
	ForgetAbove
	CutInFlight
	CopiesUnlisted
	PromoteStale
	TrimSeen
	TrimPresent
	DeltaKeeps

	// Of a holder with an outdated view.
	NoSwap
	AnswerAssumed
	AcquireEarly
	AnswerUnleased
	LeaseBlind

	// Of the journal.
	AnswerUnsynced
	PromiseUnsynced
	ReplayNoPromise
	TornBatch
	TailEarly
	PlaceUnsynced
	UncertainDropped

	// Of clones.
	CloneOpen
	CloneInFlight
	CloneUnrolled
	CloneStale
	PinnedTrimmed
	PinnedFreed
	DetachEarly
	NoteUnsynced
	NoteAgain
	Unbequeathed
	InheritNewest
	ForgetOrigin
	ReadBare
	FillBare
	UncountedShare

	mistakes
)

var mistakeName = [mistakes]string{
	None:               "none",
	AckEarly:           "acknowledge before the drop is committed",
	NoFence:            "no generation check when a message is applied",
	ServeEarly:         "serve before the takeover has copied",
	FillOverwrites:     "fill overwrites newer",
	NoBarrier:          "fill finds equal while something unsent is open",
	DeltaOneSided:      "delta ignores the returning side",
	CutoffHigh:         "cutoff above the watermark",
	JoinWithoutPrepare: "skip the promise of a joining member",
	Unordered:          "messages applied in any order",
	FillNewer:          "a new member is filled only where newer",
	FillNewerAlways:    "delta only where newer",
	JoiningCutoff:      "a joining member is dropped at the watermark",
	TakeoverCutoff:     "a takeover drops at its own generation",
	RollMark:           "roll forward carries the new watermark",
	FillContinues:      "fill goes on across a takeover",
	ForgetEarly:        "a tombstone is forgotten while a member is stale",
	ForgetAbove:        "a tombstone is forgotten above an older epoch",
	CutInFlight:        "a snapshot is cut with writes in flight",
	CopiesUnlisted:     "a copy is not listed by the next promise",
	PromoteStale:       "a stale member is promoted",
	TrimSeen:           "a version is removed that a snapshot sees",
	TrimPresent:        "a version is removed that the present epoch sees",
	DeltaKeeps:         "a delta leaves what was removed meanwhile",

	NoSwap:         "raft takes a proposal without comparing",
	AnswerAssumed:  "a holder takes an unanswered proposal for granted",
	AcquireEarly:   "the volume is taken while the lease holds",
	AnswerUnleased: "a holder answers without its lease",
	LeaseBlind:     "a renewed lease is trusted without a look at the record",

	AnswerUnsynced:   "a disk answers before the batch is durable",
	PromiseUnsynced:  "a disk promises before the batch is durable",
	ReplayNoPromise:  "replay ignores the promise",
	TornBatch:        "replay takes a part of a torn batch",
	TailEarly:        "the tail moves before the map is flushed",
	PlaceUnsynced:    "the tail moves before the blocks are in place",
	UncertainDropped: "a checkpoint drops what is uncertain",

	CloneOpen:      "a clone begins as an epoch that goes on",
	CloneInFlight:  "a clone is made with writes in flight",
	CloneUnrolled:  "a clone is made before its origin serves",
	CloneStale:     "a clone takes over who is not active",
	PinnedTrimmed:  "what a clone begins as is trimmed before it is noted",
	PinnedFreed:    "an origin is freed before its clone has noted it",
	DetachEarly:    "a clone is detached before all have noted its origin",
	NoteUnsynced:   "a disk promises before it has noted the origin durably",
	NoteAgain:      "an origin is noted at each promise",
	Unbequeathed:   "what a clone has to inherit changes",
	InheritNewest:  "a clone inherits what its origin is by now",
	ForgetOrigin:   "an origin is forgotten before all is inherited",
	ReadBare:       "a clone is read before it has inherited",
	FillBare:       "a member is filled from one that has not inherited",
	UncountedShare: "a shared place is not counted",
}
