/** What is said of CD-ROM drives. */
export const drive = {
  add: 'Add a drive',
  addConfirm: 'Add',
  bus: 'Bus',
  busText: 'SCSI is for guests that have no driver for SATA.',
  cloudInit: 'Cloud-init finds its data in one more drive.',
  confirm: 'Insert',
  eject: 'Eject the disc of drive {{drive}}',
  empty: 'Empty',
  image: 'Image',
  insert: 'Put a disc into drive {{drive}}',
  noImages: 'There are no images yet; upload an ISO under Storage.',
  none: 'No drive; one can be added while the machine is off.',
  title: 'CD-ROM drives',
};
