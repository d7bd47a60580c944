package schema

import "drystone.example/drystone/backend/model"

// A CDROM is a CD-ROM drive of a machine.
type CDROM struct {
	Image model.VolumeID `json:"image"` // empty: nothing is in it
	Name  string         `json:"name"`  // of the image
	Size  model.Bytes    `json:"size_bytes"`
	Bus   model.DriveBus `json:"bus" enum:"sata,scsi"`
}

// A CDROMSpec asks for a CD-ROM drive, or for what shall be in one.
type CDROMSpec struct {
	Image string         `json:"image,omitempty" maxLength:"63" doc:"an image of the library; empty: nothing is in it"`
	Bus   model.DriveBus `json:"bus,omitempty" enum:"sata,scsi" doc:"sata unless given; scsi (virtio) is for guests without a driver for that"`
}

// A CloudInit is what cloud-init reads when the guest starts first, from a CD-ROM drive of
// its own. It may hold passwords: nobody is shown it again.
type CloudInit struct {
	UserData string `json:"user_data,omitempty" maxLength:"65536"`
	MetaData string `json:"meta_data,omitempty" maxLength:"65536" doc:"the machine's identifier and name unless given"`
}
