package pki

import (
	"encoding/base32"
	"hash/crc32"

	"drystone.example/drystone/backend/model"
)

// text is Crockford's base32 in lower case, the alphabet of model's identifiers.
var text = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// decodeText reads exactly n bytes; each value has one spelling only.
func decodeText(what, s string, n int) ([]byte, error) {
	b, err := text.DecodeString(s)
	if err != nil || len(b) != n || text.EncodeToString(b) != s {
		return nil, model.Errorf(model.Invalid, "the %s is damaged: copy it again, whole", what)
	}
	return b, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkOf is the last part of what people copy: it catches slips, not attackers.
func checkOf(s string) string {
	sum := crc32.Checksum([]byte(s), castagnoli)
	return text.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}
