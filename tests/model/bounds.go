package model

// small bounds are explored whole in every `make test`.
var small = []Bound{
	{
		Name: "three writes", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 3, Reigns: 2, Drops: 1, Joins: 1,
	},
	{
		Name: "two drops", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 3, Drops: 2, Joins: 1,
	},
	{
		Name: "two joins", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 2, Drops: 2, Joins: 2,
	},
	{
		Name: "marks", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 2, Drops: 1, Joins: 1, Marks: 1,
	},
	{
		Name: "two blocks in a page", Disks: 2, Copies: 2, Pages: 1, Blocks: 2, Epochs: 1,
		Writes: 2, Reigns: 3, Drops: 1, Joins: 1,
	},
	{
		Name: "two pages", Disks: 2, Copies: 2, Pages: 2, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 2, Drops: 1, Joins: 1,
	},
	{
		Name: "snapshot", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 2,
		Writes: 2, Reigns: 3, Drops: 1, Joins: 1,
	},
	{
		Name: "discard", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 2,
		Writes: 3, Reigns: 1, Drops: 1, Joins: 1, Discard: true,
	},
	{
		Name: "three copies", Disks: 3, Copies: 3, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 1, Reigns: 3, Drops: 1, Joins: 1,
	},
	{
		Name: "deleted snapshot", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 2,
		Writes: 2, Reigns: 2, Drops: 1, Joins: 1, Trim: true,
	},
	{
		Name: "substitute", Disks: 3, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 1, Reigns: 2, Drops: 2, Joins: 2,
	},
	{
		Name: "late answers of raft", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 2, Drops: 2, Joins: 1, Delay: true,
	},
	{
		Name: "an old holder", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 2, Drops: 1, Joins: 1, Overlap: true, Delay: true,
	},
	{
		Name: "crash", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 1, Reigns: 2, Drops: 1, Joins: 1, Crashes: 1, Journal: true,
	},
	{
		Name: "power loss", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 1, Reigns: 2, Crashes: 2, Journal: true,
	},
	{
		Name: "crash in a checkpoint", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 2, Crashes: 1, Checkpoints: 1, Journal: true,
	},
}

// clones are explored whole, too: an origin and its clone, in one page.
var clones = []Bound{
	{
		Name: "clone", Disks: 2, Copies: 2, Epochs: 2, Writes: 3, Reigns: 1, Drops: 1,
	},
	{
		Name: "clone with drops and joins", Disks: 2, Copies: 2, Epochs: 1, Writes: 1, Reigns: 2, Drops: 1, Joins: 2,
	},
	{
		Name: "clone with a third disk", Disks: 3, Copies: 2, Epochs: 1, Writes: 1, Reigns: 1, Drops: 1, Joins: 1,
	},
	{
		Name: "clone and discard", Disks: 2, Copies: 2, Epochs: 1, Writes: 2, Reigns: 2, Discard: true,
	},
	{
		Name: "clone and crashes", Disks: 2, Copies: 2, Epochs: 1, Writes: 1, Reigns: 2, Crashes: 2,
	},
}

// largeClones are explored up to a limit of states, at night.
var largeClones = []Bound{
	{
		Name: "clone of a snapshot, all together", Disks: 2, Copies: 2, Epochs: 2, Writes: 3, Reigns: 2, Drops: 2, Joins: 2,
		Crashes: 1, Discard: true,
	},
	{
		Name: "clone with more drops", Disks: 2, Copies: 2, Epochs: 1, Writes: 1, Reigns: 2, Drops: 2, Joins: 2,
	},
	{
		Name: "clone with a substitute", Disks: 3, Copies: 2, Epochs: 1, Writes: 1, Reigns: 2, Drops: 2, Joins: 2,
	},
	{
		Name: "clone in three copies", Disks: 3, Copies: 3, Epochs: 1, Writes: 2, Reigns: 1, Drops: 2, Joins: 1,
	},
}

// wide is what random walks use.
var wide = Bound{
	Name: "random walks", Disks: 3, Copies: 2, Pages: 2, Blocks: 2, Epochs: 2,
	Writes: 4, Reigns: 6, Drops: 6, Joins: 6, Marks: 3, Crashes: 4, Checkpoints: 4,
	Discard: true, Trim: true, Overlap: true, Delay: true, Journal: true,
}

// large bounds are explored up to a limit of states, at night.
var large = []Bound{
	{
		Name: "three writes, three reigns", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 3, Reigns: 3, Drops: 2, Joins: 2, Marks: 1,
	},
	{
		Name: "two blocks in two pages", Disks: 2, Copies: 2, Pages: 2, Blocks: 2, Epochs: 1,
		Writes: 3, Reigns: 2, Drops: 1, Joins: 1,
	},
	{
		Name: "snapshot and discard", Disks: 2, Copies: 2, Pages: 1, Blocks: 2, Epochs: 2,
		Writes: 3, Reigns: 3, Drops: 1, Joins: 1, Discard: true,
	},
	{
		Name: "deleted snapshot and discard", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 2,
		Writes: 3, Reigns: 2, Drops: 1, Joins: 1, Discard: true, Trim: true,
	},
	{
		Name: "three copies, two writes", Disks: 3, Copies: 3, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 3, Drops: 2, Joins: 1,
	},
	{
		Name: "substitute, two writes", Disks: 3, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 3, Drops: 2, Joins: 2,
	},
	{
		Name: "late answers of raft, three reigns", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 3, Drops: 2, Joins: 2, Delay: true,
	},
	{
		Name: "two old holders", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 3, Drops: 2, Joins: 1, Overlap: true, Delay: true,
	},
	{
		Name: "an old holder and a substitute", Disks: 3, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 1, Reigns: 2, Drops: 2, Joins: 2, Overlap: true, Delay: true,
	},
	{
		Name: "crashes with drops and joins", Disks: 2, Copies: 2, Pages: 1, Blocks: 1, Epochs: 1,
		Writes: 2, Reigns: 3, Drops: 1, Joins: 1, Crashes: 2, Checkpoints: 1, Journal: true,
	},
	{
		Name: "crashes, two blocks", Disks: 2, Copies: 2, Pages: 1, Blocks: 2, Epochs: 1,
		Writes: 3, Reigns: 2, Crashes: 2, Checkpoints: 2, Journal: true,
	},
}
