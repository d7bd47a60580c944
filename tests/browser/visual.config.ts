import { defineConfig } from '@playwright/test';
import base from './playwright.config';

// Takes pictures of every screen, for eyes: npm run shots -> results/shots/.
export default defineConfig({ ...base, testMatch: 'shots.visual.ts' });
