// A real Chromium that a test drives, one command a line on standard input, one answer a line on standard output.
//
//   node browser.mjs <path of the browser>
//
// Each command is JSON with `do` and, but for `open`, `page`: the name of a window that `open` made, in a context of its
// own, as another person's browser would be. The answer is {"value"} or {"error"}. It ends with its standard input.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [executablePath] = process.argv.slice(2);
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
const pages = new Map();

/** What went wrong on a page by itself: scripts that failed, what the content security policy stopped, dialogs. */
function watch(page) {
  page.incidents = [];
  page.on('pageerror', (error) => page.incidents.push(`script: ${error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error' && !/status of (4|5)\d\d/.test(message.text())) page.incidents.push(message.text());
  });
  page.on('dialog', (dialog) => {
    page.incidents.push(`dialog: ${dialog.message()}`);
    return dialog.dismiss();
  });
}

async function check(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ['violations'] }));
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`);
}

const COMMANDS = {
  open: async (_, { name, dark, width = 1280, height = 860, scripts = true }) => {
    const context = await browser.newContext({
      colorScheme: dark ? 'dark' : 'light',
      viewport: { width, height },
      javaScriptEnabled: scripts,
      deviceScaleFactor: width < 500 ? 2 : 1,
    });
    context.setDefaultTimeout(30_000);
    pages.set(name, await context.newPage());
    watch(pages.get(name));
  },
  goto: async (page, { url }) => (await page.goto(url, { waitUntil: 'load' }))?.status() ?? 0,
  click: (page, { selector }) => page.click(selector),
  fill: (page, { selector, text }) => page.fill(selector, text),
  press: (page, { key }) => page.keyboard.press(key),
  wait: (page, { selector }) => page.waitForSelector(selector).then(() => undefined),
  wait_url: (page, { url }) => page.waitForURL(url, { waitUntil: 'load' }),
  url: (page) => page.url(),
  title: (page) => page.title(),
  text: (page, { selector }) => page.locator(selector).first().innerText(),
  count: (page, { selector }) => page.locator(selector).count(),
  focused: (page) => page.evaluate(() => document.activeElement?.id || document.activeElement?.className || ''),
  set: (page, { selector, attribute, value }) => page.locator(selector).first()
    .evaluate((element, [name, text]) => element.setAttribute(name, text), [attribute, value]),
  wide: (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
  check: (page) => check(page),
  incidents: (page) => page.incidents.splice(0),
  cookies: (page) => page.context().cookies(),
  picture: (page, { path, whole = true }) => page.screenshot({ path, fullPage: whole }).then(() => undefined),
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    const page = pages.get(command.page);
    if (!page && command.do !== 'open') throw new Error(`no page ${command.page}`);
    console.log(JSON.stringify({ value: (await COMMANDS[command.do](page, command)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error.message ?? error) }));
  }
}
await browser.close();
