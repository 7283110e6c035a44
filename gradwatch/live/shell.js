'use strict';
// The report stands in a frame. A newer one is loaded behind it, gets its view, and takes its place.
(() => {
const place = document.getElementById('place'), status = document.getElementById('status');
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
let shown = null, version = 0;
const viewOf = (frame) => {
  const {document: page, location: address, scrollY} = frame.contentWindow, slider = page.getElementById('step'), link = new URLSearchParams(address.hash.slice(1));
  // Who looks at the last step follows the run: the page goes to the step that is nearest to the number.
  if (link.has('step') && slider && slider.value === slider.max) link.set('step', Number.MAX_SAFE_INTEGER);
  const tables = [...page.querySelectorAll('[data-table][aria-expanded=true]')].map((button) => button.dataset.table);
  return {hash: link.size ? `#${link}` : address.hash, scrollY, theme: page.documentElement.dataset.theme, tables};
};
const busy = () => {
  const page = shown?.contentDocument, at = page?.activeElement;
  return Boolean(page?.querySelector('dialog[open]') || (at?.matches('input[type=text]') && at.value) || page?.querySelector('#play[aria-pressed=true]'));
};
const ready = async (frame) => {
  for (let i = 0; i < 200; i += 1) {
    if (frame.contentDocument?.documentElement.dataset.ready === 'true') return;
    await pause(50);
  }
};
const scroll = (frame, top) => frame.contentWindow.scrollTo({top, behavior: 'instant'});
const restore = async (frame, view) => {
  const page = frame.contentDocument;
  if (view.theme && view.theme !== page.documentElement.dataset.theme) page.getElementById('theme').click();
  for (const name of view.tables) page.querySelector(`[data-table="${CSS.escape(name)}"][aria-expanded=false]`)?.click();
  // Tables and plots take their room a little later, and the place would move with what grows above it.
  scroll(frame, view.scrollY);
  await pause(100);
};
const replace = async (number) => {
  const frame = document.createElement('iframe'), loaded = new Promise((done) => { frame.onload = done; });
  const start = shown ? viewOf(shown).hash : location.hash;
  frame.title = 'Report of the run';
  frame.className = 'next';
  frame.sandbox = 'allow-scripts allow-same-origin allow-forms allow-modals';
  frame.src = `report?version=${number}${start}`;
  place.append(frame);
  await loaded;
  await ready(frame);
  if (shown) await restore(frame, viewOf(shown));
  const top = shown?.contentWindow.scrollY;
  frame.className = '';
  if (shown) scroll(frame, top);
  shown?.remove();
  shown = frame;
  document.title = `${frame.contentDocument.title} · live`;
};
const mirror = () => {
  const hash = shown?.contentWindow.location.hash;
  if (hash && hash !== location.hash) history.replaceState(null, '', hash);
};
const say = (state, text) => {
  if (status.textContent !== text) status.textContent = text;
  status.dataset.state = state;
};
window.addEventListener('hashchange', () => { if (shown) shown.contentWindow.location.replace(`${shown.contentWindow.location.href.split('#')[0]}${location.hash}`); });
const follow = async () => {
  for (;;) {
    try {
      const answer = await fetch('version', {cache: 'no-store'});
      if (!answer.ok) throw new Error(String(answer.status));
      const news = await answer.json();
      say(news.open ? 'open' : 'still', news.status);
      if (news.version !== version && news.version && !busy()) { await replace(news.version); version = news.version; }
    } catch {
      say('lost', 'gradwatch live does not answer any more; what stands below is what it showed last.');
    }
    mirror();
    document.documentElement.dataset.version = String(version);
    await pause(1000);
  }
};
follow();
})();
