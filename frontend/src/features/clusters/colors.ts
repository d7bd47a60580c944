/** The colours a cluster can be tagged with, so that nobody confuses two. */
export const colors = [
  { name: 'tarn', value: '#188379' },
  { name: 'sky', value: '#1c7ed6' },
  { name: 'heather', value: '#7048b8' },
  { name: 'rowan', value: '#c92a2a' },
  { name: 'gorse', value: '#d9a406' },
  { name: 'slate', value: '#5c6f74' },
] as const;
