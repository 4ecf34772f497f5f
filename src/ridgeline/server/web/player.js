// Player: the playhead over a tape: play, pause, step, speed. Knows columns and time; knows no diagram.

export class Player {
  // onMove(at): called whenever the playhead moves. onPlay(playing): whenever it begins or ends to move by itself.
  constructor(onMove, onPlay) {
    Object.assign(this, {onMove, onPlay, tape: null, at: 0, rate: 8, playing: false});
  }

  put(tape, at) {
    this.tape = tape;
    this.pause();
    this.to(at);
  }

  to(at) {
    if (!this.tape?.length) return;
    this.at = Math.max(0, Math.min(this.tape.length - 1, at));
    this.onMove(this.at);
  }

  step(columns) {
    this.pause();
    this.to(this.at + columns);
  }

  toggle() {
    if (this.playing) this.pause(); else this.play();
  }

  play() {
    if (!this.tape?.length) return;
    if (this.at >= this.tape.length - 1) this.to(0); // from the beginning again
    this.playing = true;
    this.onPlay(true);
    this._begin();
    const frame = now => {
      if (!this.playing) return;
      const at = this._due(now);
      if (at !== this.at) this.to(at);
      if (this.at >= this.tape.length - 1) this.pause(); else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  speed(rate) {
    // Steps a second; 0: as fast as they were.
    this.rate = rate;
    if (this.playing) this._begin();
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.onPlay(false);
  }

  _begin() {
    this._from = this.at;
    this._since = performance.now();
  }

  _due(now) {
    // The column where the playhead should be by now.
    const passed_ms = Math.max(0, now - this._since);
    if (this.rate) return Math.min(this.tape.length - 1, this._from + Math.floor(passed_ms * this.rate / 1000));
    const {collected_us} = this.tape.steps, until_us = collected_us[this._from] + 1000 * passed_ms;
    let at = this.at;
    while (at < this.tape.length - 1 && collected_us[at + 1] <= until_us) at += 1;
    return at;
  }
}
