import { cleanup } from '@testing-library/react';
import { afterEach } from 'vitest';

afterEach(cleanup);

// Mantine and uPlot ask for both; happy-dom has neither as they want it.
if (typeof window !== 'undefined') {
  window.matchMedia ??= (query: string) => ({ matches: false, media: query }) as MediaQueryList;
}
