package model

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// The identifiers. Each is 64 random bits, drawn by whoever proposes the object
// and refused by the record if it was ever in use; zero means none. In text they
// are 13 characters of lower-case base32 without look-alikes, so that one can be
// read out over a telephone.
type (
	ClusterID uint64 // a cluster, for ever
	NodeID    uint64 // a node, from join to removal; never reused
	DiskID    uint64 // a disk; lies in its superblock, so it follows the hardware
	VolumeID  uint64 // a virtual disk; never reused, also not after deletion
	VMID      uint64 // a virtual machine
	UserID    uint64 // a person or a program that logs in
	TaskID    uint64 // a piece of long work

	SnapshotID uint64 // a snapshot of a volume
	NetworkID  uint64 // what network cards are joined to
	UploadID   uint64 // a file on its way to a node
	DownloadID uint64 // a file that a node made for somebody
)

const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's base32

// NewID draws an identifier that is not zero.
func NewID[T ~uint64]() T {
	for {
		var b [8]byte
		rand.Read(b[:]) // never fails (crypto/rand)
		if id := T(binary.LittleEndian.Uint64(b[:])); id != 0 {
			return id
		}
	}
}

func formatID(id uint64) string {
	var b [13]byte
	for i := range b {
		b[12-i] = idAlphabet[id&31]
		id >>= 5
	}
	return string(b[:])
}

// ParseID reads what String wrote.
func ParseID[T ~uint64](s string) (T, error) {
	if len(s) != 13 {
		return 0, Errorf(Invalid, "%q is not an identifier", s)
	}
	var id uint64
	for i := range len(s) {
		v := -1
		for j := range len(idAlphabet) {
			if idAlphabet[j] == s[i] {
				v = j
			}
		}
		if v < 0 || i == 0 && v > 15 {
			return 0, Errorf(Invalid, "%q is not an identifier", s)
		}
		id = id<<5 | uint64(v)
	}
	return T(id), nil
}

func marshalID(id uint64) ([]byte, error) {
	if id == 0 {
		return []byte{}, nil
	}
	return []byte(formatID(id)), nil
}

func unmarshalID[T ~uint64](id *T, text []byte) (err error) {
	if len(text) == 0 {
		*id = 0
		return nil
	}
	if *id, err = ParseID[T](string(text)); err != nil {
		return fmt.Errorf("read identifier: %w", err)
	}
	return nil
}

func (id ClusterID) String() string               { return formatID(uint64(id)) }
func (id ClusterID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *ClusterID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }

func (id NodeID) String() string               { return formatID(uint64(id)) }
func (id NodeID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *NodeID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }

func (id DiskID) String() string               { return formatID(uint64(id)) }
func (id DiskID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *DiskID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }

func (id VolumeID) String() string               { return formatID(uint64(id)) }
func (id VolumeID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *VolumeID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }

func (id VMID) String() string               { return formatID(uint64(id)) }
func (id VMID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *VMID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }

func (id UserID) String() string               { return formatID(uint64(id)) }
func (id UserID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *UserID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }

func (id TaskID) String() string               { return formatID(uint64(id)) }
func (id TaskID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *TaskID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }

func (id SnapshotID) String() string               { return formatID(uint64(id)) }
func (id SnapshotID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *SnapshotID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }

func (id NetworkID) String() string               { return formatID(uint64(id)) }
func (id NetworkID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *NetworkID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }

func (id UploadID) String() string               { return formatID(uint64(id)) }
func (id UploadID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *UploadID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }

func (id DownloadID) String() string               { return formatID(uint64(id)) }
func (id DownloadID) MarshalText() ([]byte, error) { return marshalID(uint64(id)) }

// UnmarshalText reads what MarshalText wrote; empty text is the zero identifier.
func (id *DownloadID) UnmarshalText(text []byte) error { return unmarshalID(id, text) }
