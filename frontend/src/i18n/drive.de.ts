import type { Texts } from './en';

export const drive: Texts['drive'] = {
  add: 'Laufwerk hinzufügen',
  addConfirm: 'Hinzufügen',
  bus: 'Bus',
  busText: 'SCSI ist für Gäste ohne Treiber für SATA.',
  cloudInit: 'Cloud-init findet seine Daten in einem weiteren Laufwerk.',
  confirm: 'Einlegen',
  eject: 'Medium aus Laufwerk {{drive}} auswerfen',
  empty: 'Leer',
  image: 'Image',
  insert: 'Medium in Laufwerk {{drive}} einlegen',
  noImages: 'Es gibt noch keine Images; laden Sie unter „Speicher“ ein ISO hoch.',
  none: 'Kein Laufwerk; solange die Maschine aus ist, kann eines hinzugefügt werden.',
  title: 'CD-ROM-Laufwerke',
};
