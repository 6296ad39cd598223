// Evaluated in the page of the list: when it had rows, and when it had but the one that
// was searched for, in milliseconds since the navigation began.
(async (name) => {
  const rows = () => [...document.querySelectorAll('tbody tr')];
  const shown = () => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))));
  const until = (holds) => new Promise((done) => {
    const look = () => {
      if (!holds()) return;
      observer.disconnect();
      done(shown());
    };
    const observer = new MutationObserver(look);
    observer.observe(document, { subtree: true, childList: true, characterData: true });
    look();
  });
  const listed = await until(() => rows().length > 1);
  document.querySelector('#text').focus();
  document.execCommand('insertText', false, name); // with the events of somebody who types
  const searched = await until(() => rows().length === 1 && rows()[0].innerText.includes(name));
  return [listed, searched];
})
