// A machine's consoles in the page, with a real guest: what is typed appears on its
// screen, from a node that does not run it, and goes on when it moves.
import { expect, test } from '@playwright/test';
import type { APIRequestContext, Page } from '@playwright/test';
import { choose, clean, cluster, logIn } from './cluster';

/**
 * The guest is a boot sector. It clears the screen and then says every key that is
 * pressed, on the screen and on the serial port.
 */
const sector = Buffer.alloc(1 << 20);
Buffer.from(
  'b80300cd10' + // the video mode of text
    'bb0700' + // grey
    '31c0cd16' + // wait for a key
    'b40ecd10' + // say it on the screen
    'baf803ee' + // and on the serial port
    '3c0d75f0' + // again, unless it was Enter:
    'b00acd10ee' + // then a new line too
    'ebe9',
  'hex',
).copy(sector);
sector.writeUInt16LE(0xaa55, 510);

const NAME = 'echo';

/** The API, by the session of the page. */
class API {
  constructor(
    readonly http: APIRequestContext,
    readonly token: string,
  ) {}

  async call(method: string, path: string, data?: unknown): Promise<Buffer> {
    const answer = await this.http.fetch(`${cluster.url()}/api/v1${path}`, {
      method,
      headers: {
        Authorization: `Bearer ${this.token}`,
        'Content-Type': Buffer.isBuffer(data) ? 'application/octet-stream' : 'application/json',
      },
      ...(data !== undefined && { data: data as object }),
    });
    const body = await answer.body();
    expect(answer.ok(), `${method} ${path}: ${body.toString('utf8', 0, 500)}`).toBe(true);
    return body;
  }

  async vm(): Promise<{ state: string; node: string; moves: boolean }> {
    const vm = JSON.parse((await this.call('GET', `/vms/${NAME}`)).toString()) as {
      node_name: string;
      moves_to?: string;
      status: { state: string };
    };
    return { state: vm.status.state, node: vm.node_name, moves: vm.moves_to !== undefined };
  }
}

async function signIn(page: Page, http: APIRequestContext): Promise<API> {
  await logIn(page);
  const token = await page.evaluate(() => sessionStorage.getItem('drystone.token'));
  return new API(http, token ?? '');
}

async function open(page: Page, kind: 'screen' | 'serial'): Promise<void> {
  await page.evaluate((to) => {
    location.hash = to;
  }, `#/c/here/vms/${NAME}/console${kind === 'serial' ? '?kind=serial' : ''}`);
  await expect(page.locator('[data-line=open]').first()).toBeVisible();
}

/** How many pixels of the canvas are not as in the screenshot that the API takes. */
async function different(page: Page, api: API): Promise<number> {
  const png = (await api.call('GET', `/vms/${NAME}/screen.png`)).toString('base64');
  return page.evaluate(async (data) => {
    const canvas = document.querySelector<HTMLCanvasElement>('[data-screen] canvas');
    const image = new Image();
    image.src = `data:image/png;base64,${data}`;
    await image.decode();
    if (!canvas || canvas.width !== image.width || canvas.height !== image.height) return Infinity;
    const other = new OffscreenCanvas(image.width, image.height).getContext('2d');
    other?.drawImage(image, 0, 0);
    const all = [0, 0, canvas.width, canvas.height] as const;
    const shown = canvas.getContext('2d')?.getImageData(...all).data ?? [];
    const taken = other?.getImageData(...all).data ?? [];
    let n = 0;
    for (let i = 0; i < shown.length; i += 4) {
      if (Math.abs((shown[i] ?? 0) - (taken[i] ?? 0)) > 64) n++;
    }
    return n;
  }, png);
}

/** A cursor that blinks, and no letter. */
const CURSOR = 40;

/** Waits until the canvas shows what the guest's screen does, and returns that. */
async function settled(page: Page, api: API): Promise<Buffer> {
  await expect.poll(() => different(page, api)).toBeLessThanOrEqual(CURSOR);
  return api.call('GET', `/vms/${NAME}/screen.png`);
}

/** How many pixels of the guest's screen are lit, as the page shows it. */
async function lit(page: Page): Promise<number> {
  return page.evaluate(() => {
    const canvas = document.querySelector<HTMLCanvasElement>('[data-screen] canvas');
    const data = canvas?.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height).data;
    return data ? data.filter((v, i) => i % 4 === 0 && v > 100).length : 0;
  });
}

async function types(page: Page, api: API, text: string): Promise<void> {
  const before = await lit(page);
  await page.locator('[data-screen] canvas').focus();
  await page.keyboard.type(text, { delay: 40 });
  await expect.poll(() => lit(page)).toBeGreaterThan(before + 10 * text.length);
  await settled(page, api);
}

/** Everything that the guest said on its serial port. */
const terminal = (page: Page) => page.locator('.xterm-rows');

test.describe.configure({ mode: 'serial' });

test.beforeAll(async ({ browser }) => {
  const page = await browser.newPage({ ignoreHTTPSErrors: true });
  const api = await signIn(page, page.request);
  await api.call('POST', `/images?name=${NAME}-image&format=raw`, sector);
  await api.call('POST', '/vms', {
    name: NAME,
    cpus: 1,
    memory_bytes: 128 << 20,
    disks: [{ image: `${NAME}-image` }],
  });
  // Not at the node whose page is open.
  await api.call('POST', `/vms/${NAME}/start`, { node: 'node2' });
  await expect.poll(async () => (await api.vm()).state, { timeout: 60_000 }).toBe('running');
  await page.close();
});

test.afterAll(async ({ browser }) => {
  const page = await browser.newPage({ ignoreHTTPSErrors: true });
  const api = await signIn(page, page.request);
  await api.call('POST', `/vms/${NAME}/stop`, {});
  await expect.poll(async () => (await api.vm()).state, { timeout: 60_000 }).toBe('stopped');
  await api.call('DELETE', `/vms/${NAME}`);
  await api.call('DELETE', `/volumes/${NAME}-image`);
  await page.close();
});

test('what is typed appears on the screen, and goes on when the machine moves', async ({
  page,
}) => {
  await choose(page, 'en', 'light');
  const api = await signIn(page, page.request);
  expect((await api.vm()).node).toBe('node2');
  await open(page, 'screen');
  await expect(page.getByText('You type. Nobody else is watching.')).toBeVisible();
  await settled(page, api);
  await types(page, api, 'typed by hand ');

  await page.getByRole('button', { name: 'Type text' }).click();
  await page.getByRole('textbox', { name: 'Text' }).fill('pasted: A_b!~');
  await page.getByRole('button', { name: 'Type it' }).click();
  await expect(page.getByRole('dialog')).toHaveCount(0);
  await expect(page.locator('[data-screen] canvas')).toBeFocused();
  await page.keyboard.press('Control+Alt+KeyG');
  await expect(page.getByRole('button', { name: 'Ctrl Alt Del' })).toBeFocused();
  await types(page, api, ' and here'); // Ctrl and Alt are not held

  await api.call('POST', `/vms/${NAME}/migrate`, { node: 'node3' });
  await expect
    .poll(async () => JSON.stringify(await api.vm()), { timeout: 60_000 })
    .toBe(JSON.stringify({ state: 'running', node: 'node3', moves: false }));
  await expect(page.locator('[data-screen=open]')).toBeVisible();
  await settled(page, api);
  await types(page, api, ' and there');

  await page.getByRole('tab', { name: 'Serial port' }).click();
  await expect(terminal(page)).toContainText('and there');
});

test('one types, another watches, and takes over', async ({ page, browser }) => {
  await choose(page, 'en', 'light');
  const api = await signIn(page, page.request);
  await open(page, 'screen');
  await settled(page, api);
  const other = await browser.newPage({ ignoreHTTPSErrors: true });
  await choose(other, 'en', 'dark');
  await signIn(other, other.request);
  await open(other, 'screen');
  await expect(other.getByText(`You only watch. ${cluster.user()} types.`)).toBeVisible();
  await expect(page.getByText(`You type. Watching: ${cluster.user()}.`)).toBeVisible();

  // Keys of who only watches are not sent; and if they were, they would be dropped.
  await other.locator('[data-screen] canvas').focus();
  await other.keyboard.type('nothing');
  await types(page, api, 'something');
  await settled(other, api);

  await other.getByRole('button', { name: 'Take over' }).click();
  await expect(other.getByText('You type.')).toBeVisible();
  await expect(page.getByText('has taken over')).toBeVisible();
  await settled(other, api);
  await types(other, api, 'taken');
  await settled(page, api);
  await open(other, 'serial');
  await expect(terminal(other)).toContainText('somethingtaken');
  await other.close();
});

for (const scheme of ['light', 'dark'] as const) {
  test(`axe finds nothing in ${scheme}`, async ({ page }) => {
    await page.emulateMedia({ reducedMotion: 'reduce' });
    await choose(page, 'en', scheme);
    const api = await signIn(page, page.request);
    await open(page, 'screen');
    await settled(page, api);
    await clean(page, 'console, screen');
    await page.screenshot({ path: `results/shots/console-screen-${scheme}.png` });
    await page.getByRole('button', { name: 'Type text' }).click();
    await page.getByRole('textbox', { name: 'Text' }).fill('straße');
    await clean(page, 'console, type text');
    await page.screenshot({ path: `results/shots/console-type-${scheme}.png` });
    await page.keyboard.press('Escape');
    await open(page, 'serial');
    await clean(page, 'console, serial port');
    await page.screenshot({ path: `results/shots/console-serial-${scheme}.png` });
  });
}
