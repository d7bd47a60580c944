package model

// IOLimits bound what each disk of a machine does. Zero is no limit.
type IOLimits struct {
	IOPS  int64 `json:"iops,omitempty"`             // requests per second
	Bytes Bytes `json:"bytes_per_second,omitempty"` // read and written
	Burst int64 `json:"burst_seconds,omitempty"`    // of what was left unused may be made up for at once
}

// The bounds of IOLimits: less than the least starves a guest, more is as good as none.
const (
	MinIOPS    = 10
	MaxIOPS    = 10_000_000
	MinIOBytes = Bytes(1 << 20)
	MaxIOBytes = Bytes(1 << 40)
	MaxIOBurst = 3600
)

// Validate says what is wrong with limits, or nil.
func (l IOLimits) Validate() error {
	switch {
	case l.IOPS != 0 && (l.IOPS < MinIOPS || l.IOPS > MaxIOPS):
		return Errorf(Invalid, "a limit is %d to %d requests a second, or 0 for none, not %d", MinIOPS, MaxIOPS, l.IOPS)
	case l.Bytes != 0 && (l.Bytes < MinIOBytes || l.Bytes > MaxIOBytes):
		return Errorf(Invalid, "a limit is %d MiB to %d MiB a second, or 0 for none, not %d bytes",
			MinIOBytes>>20, MaxIOBytes>>20, l.Bytes)
	case l.Burst < 0 || l.Burst > MaxIOBurst:
		return Errorf(Invalid, "a burst makes up for 0 to %d seconds, not %d", MaxIOBurst, l.Burst)
	}
	return nil
}
