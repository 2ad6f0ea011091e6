// The one entry: each page has all of it, and each part does nothing where its elements are not.

import { listen } from "./actions.js";
import { offerBulk } from "./bulk.js";
import { offerFrames } from "./film.js";
import { offerJoining } from "./joining.js";
import { follow } from "./live.js";
import { peekAtClips } from "./peek.js";
import { offerSettings } from "./settings.js";
import { offerSubmit } from "./submit.js";
import { offerThroughput } from "./throughput.js";
import { keepTimes, setClock } from "./times.js";

setClock(Number(document.body.dataset.now));
keepTimes();
document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" }); // on a phone the bar is wider than the screen
listen();
peekAtClips();
offerSubmit();
offerSettings();
offerJoining();
offerBulk();
offerFrames();
offerThroughput();
follow();
