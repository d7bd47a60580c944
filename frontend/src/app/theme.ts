import { createTheme, Modal } from '@mantine/core';
import type { CSSVariablesResolver, MantineColorsTuple } from '@mantine/core';

// Tarn: the green-blue of a lake between stones.
const tarn: MantineColorsTuple = [
  '#e6f5f4',
  '#d0eae8',
  '#a2d6d1',
  '#72c1ba',
  '#4cb0a7',
  '#37a69c',
  '#2a9d93',
  '#188379',
  '#0b736a',
  '#006058',
];

// Mantine's dark greys, with the tint of the stone.
const dark: MantineColorsTuple = [
  '#e3ebec',
  '#b9c7c9',
  '#90a5a9',
  '#5f777b',
  '#2c4146',
  '#213236',
  '#19272a',
  '#142023',
  '#0f191b',
  '#0b1315',
];

export const theme = createTheme({
  primaryColor: 'tarn',
  primaryShade: { light: 8, dark: 7 },
  autoContrast: true,
  colors: { tarn, dark },
  fontFamily: '"Inter Variable", system-ui, -apple-system, "Segoe UI", sans-serif',
  fontFamilyMonospace: 'ui-monospace, "Cascadia Mono", "SF Mono", "DejaVu Sans Mono", monospace',
  headings: { fontWeight: '620' },
  defaultRadius: 'md',
  cursorType: 'pointer',
  focusRing: 'auto',
  respectReducedMotion: true,
  components: {
    Modal: Modal.extend({
      styles: {
        content: { background: 'var(--d-panel)' },
        header: { background: 'var(--d-panel)' },
        title: { fontSize: 16, fontWeight: 640 },
      },
    }),
  },
});

// Notes and errors are tints of the panel, so that what is written in them stays readable.
const quiet = {
  '--mantine-color-error': 'var(--d-bad)',
  '--mantine-color-red-light': 'color-mix(in srgb, var(--d-bad) 10%, var(--d-panel))',
  '--mantine-color-red-light-color': 'var(--d-bad)',
  '--mantine-color-orange-light': 'color-mix(in srgb, var(--d-warn) 10%, var(--d-panel))',
  '--mantine-color-orange-light-color': 'var(--d-warn)',
};

/** Our own colours beside Mantine's; charts.module.css and others use them. */
export const variables: CSSVariablesResolver = () => ({
  variables: {
    '--d-side': '#10262b',
    '--d-side-hover': '#1a363c',
    '--d-side-text': '#c9d8d9',
    '--d-side-dim': '#8fa9ac',
    '--d-brand': '#7fd0c2',
  },
  light: {
    ...quiet,
    '--mantine-color-body': '#f3f5f5',
    '--mantine-color-text': '#16262a',
    '--mantine-color-dimmed': '#566a6e',
    '--d-panel': '#ffffff',
    '--d-sunken': '#edf1f1',
    '--d-line': '#dde4e4',
    '--d-dim': '#566a6e',
    '--d-grid': '#e8eded',
    '--d-tip': '#16343b',
    '--d-tip-text': '#f0f6f6',
    '--d-ok': '#176f3d',
    '--d-warn': '#a15c00',
    '--d-bad': '#c22f2f',
    '--d-info': '#1769b5',
    '--d-cpu': '#0b736a',
    '--d-mem': '#7048b8',
    '--d-read': '#1c7ed6',
    '--d-write': '#d9730d',
    '--d-reserve': '#b8c6c8',
  },
  dark: {
    ...quiet,
    // White has to be readable on it.
    '--mantine-color-red-filled': '#c92a2a',
    '--mantine-color-red-filled-hover': '#b42525',
    '--mantine-color-body': '#0d1517',
    '--mantine-color-text': '#e3ebec',
    '--mantine-color-dimmed': '#90a5a9',
    '--mantine-color-default': '#1a282b',
    '--mantine-color-default-hover': '#213236',
    '--mantine-color-default-border': '#2c4146',
    '--d-panel': '#142023',
    '--d-sunken': '#0f191b',
    '--d-line': '#233438',
    '--d-dim': '#90a5a9',
    '--d-grid': '#1d2c30',
    '--d-tip': '#d9e6e7',
    '--d-tip-text': '#102023',
    '--d-ok': '#4fc98a',
    '--d-warn': '#f0b14a',
    '--d-bad': '#ff8080',
    '--d-info': '#6bb5ff',
    '--d-cpu': '#46c7b4',
    '--d-mem': '#b39bfb',
    '--d-read': '#5ab0ff',
    '--d-write': '#ffa94d',
    '--d-reserve': '#3a4f54',
  },
});
