package schema

import (
	"time"

	"drystone.example/drystone/backend/model"
)

// An Upload is an image file that is being sent to a node, piece by piece. It goes on at
// that node, from its offset, also after an interruption.
type Upload struct {
	ID      model.UploadID `json:"id"`
	Name    string         `json:"name"` // of the image it shall become
	File    string         `json:"file"` // name of the file where it comes from
	Mark    string         `json:"mark"` // by which who sends it knows it again
	Format  ImageFormat    `json:"format,omitempty" enum:"qcow2,raw,vmdk,vhdx,vhd,ova"`
	Copies  int            `json:"copies"`
	Size    model.Bytes    `json:"size_bytes"`
	Offset  model.Bytes    `json:"offset_bytes"` // what the node has for certain
	User    string         `json:"user"`
	Begun   time.Time      `json:"begun"`
	Expires time.Time      `json:"expires"` // unless something is sent before
}

// An UploadSpec announces an image file.
type UploadSpec struct {
	Name   string      `json:"name" maxLength:"63" doc:"of the image it shall become"`
	File   string      `json:"file,omitempty" maxLength:"255" doc:"name of the file, for people"`
	Mark   string      `json:"mark,omitempty" maxLength:"255" doc:"anything by which the sender knows the file again, to go on after an interruption"`
	Format ImageFormat `json:"format,omitempty" enum:"qcow2,raw,vmdk,vhdx,vhd,ova" doc:"without it, it is found by what is in the file"`
	Copies int         `json:"copies,omitempty" default:"2" minimum:"2" maximum:"3"`
	Size   model.Bytes `json:"size_bytes" minimum:"1"`
}

// An UploadEnd says that all of a file was sent.
type UploadEnd struct {
	SHA256 string `json:"sha256,omitempty" maxLength:"64" doc:"of the whole file, in lower-case hex; it is compared first"`
}

// An ImageFetch asks a node to download an image file from the public network.
type ImageFetch struct {
	URL    string      `json:"url" maxLength:"2048" doc:"http or https, without a password"`
	Name   string      `json:"name" maxLength:"63" doc:"of the image it shall become"`
	Format ImageFormat `json:"format,omitempty" enum:"qcow2,raw,vmdk,vhdx,vhd,ova" doc:"without it, it is found by what is in the file"`
	Copies int         `json:"copies,omitempty" default:"2" minimum:"2" maximum:"3"`
	SHA256 string      `json:"sha256,omitempty" maxLength:"64" doc:"of the whole file, in lower-case hex"`
}
