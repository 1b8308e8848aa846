// The client of client/typescript. Written by its scripts/demo.mjs: change the source, not this file.
function he(o){let t;try{t=new URL(o,globalThis.location?.href)}catch{throw new TypeError("StreamerClient: the URL can n\
ot be parsed")}if(!/^(ws|http)s?:$/.test(t.protocol))throw new TypeError(`StreamerClient: URL scheme ${t.protocol} must \
be ws, wss, http or https`);return t.hash="",t}function H(o,t){let n,i=()=>{let d=Math.min(o,3e4),c=Date.now();n=setTimeout(()=>{o-=Math.max(d,Date.now()-c),o>0?i():t()},
d)};return i(),()=>clearTimeout(n)}var ge=Symbol.for("@streamer/client.error"),D=class extends Error{constructor(t,n,{details:i,retryAfter:d,requestId:c,...p}={}){
super(n,p),this.name="StreamerError",Object.assign(this,{code:t,details:i,retryAfter:d,requestId:c}),Object.defineProperty(
this,ge,{value:!0})}static is(t){return typeof t=="object"&&t!==null&&t[ge]===!0}};function re(o,t){return new D(o?.code??"INTERNAL_ERROR",o?.message??"the server did not say what is wrong",{details:o?.details,
retryAfter:o?.retry_after_ms,requestId:t})}var Ie=new Map([["queued","accepted"],["response","complete"],["error","faile\
d"]]);function se(o,t){let n=t.type==="status"?t.status??"":t.type,i=t.error&&re(t.error,t.request_id),{seq:d,timestamp:c,
attempt:p,index:g,reason:l,success:A}=t;return{type:Ie.get(n)??n,seq:d,epoch:o,timestamp:c,attempt:p,index:g,data:t.type===
"output"?t.data:void 0,outputsFrom:t.outputs_from??0,reason:l,delay:t.retry_after_ms??0,error:i,success:A,result:t.result??
t.data,failure:t.type==="error"?i??re(void 0,t.request_id):void 0}}var ne=262144,X=class{constructor(t,n,i){this.id=t;this.limit=i;this.last=n,this.base=n+1}id;limit;epoch="";last;known=!1;answered=!1;users=1;readers=new Set;end;failure;on;asked;paused=!1;ended=!1;holes=0;pauses=0;unwait=()=>{};window=[];base;held=0;shift=0;attempt=0;progress;progressAt=0;reports=0;get edge(){
return this.base+this.window.length}reader(t){return{pos:t+1+this.shift,seq:t,reports:0}}add(t){let n=se(this.epoch,t);this.
last++,n.type==="running"&&(this.attempt=n.attempt,(this.progress?.attempt??0)<n.attempt&&(this.progress=void 0)),(n.failure||
n.type==="complete")&&(this.end=n),this.push(n,t.size??0)}push(t,n){this.window.push([t,n+256]),this.held+=n+256,this.full(
this.limit)&&(this.wake(),this.full(this.limit))}full(t){let n=Math.min(this.edge-1,...[...this.readers].map(i=>i.pos));
for(;this.held>t&&this.base<n;)this.held-=this.window.shift()?.[1]??0,this.base++;return this.held>t&&this.base+1<this.edge}skip(t){
let{epoch:n="",reason:i="recreated",attempt:d=0}=t,c=Math.max(t.oldest??1,1);(n!==this.epoch||c>this.last+1||(t.last??0)<
this.last)&&(this.push({type:"gap",reason:i,after:this.last,oldest:c,attempt:d,epoch:n},0),this.last=c-1,this.shift=this.
edge-c,this.attempt=d,this.progress=void 0),this.epoch=n}report(t){let{percentage:n=0,message:i="",metadata:d,attempt:c=0,
timestamp:p}=t,g={percentage:n,message:i,metadata:d,attempt:c,timestamp:p},l=this.progress;c<this.attempt||l?.attempt===
c&&(n<l.percentage||(p??"")<(l.timestamp??"")||JSON.stringify(g)===JSON.stringify(l))||(this.progress=g,this.progressAt=
this.edge,this.reports++)}take(t){if(t.pos<this.base){let i=this.window[0]?.[0],d=i?i.seq??i.oldest:this.last+1;return t.
pos=this.base,{type:"gap",reason:"dropped",after:t.seq,oldest:d,attempt:this.attempt,epoch:this.epoch}}if(this.progress&&
t.reports<this.reports&&t.pos>=this.progressAt)return t.reports=this.reports,{type:"progress",...this.progress};let n=this.
window[t.pos-this.base]?.[0];return n&&(t.pos++,t.seq=n.type==="gap"?n.oldest-1:n.seq),n}read(t){return!!this.end&&t.pos>=
this.edge}wake(){for(let t of[...this.readers])t.wake?.()}};var oe=0,ee=1,de=2,ce=1e3,qe=3072,De=3,Ne=1e3,Fe=5;function we(o,t){let n=new Map,i=new Map,d=new Set,c,p=0,g=0,l=0,A=()=>(++l).
toString(36),b=(e,a)=>new D("INTERNAL_ERROR",a,{requestId:e.id}),O=()=>{if(!c)return;let e=0,a=0;for(let h of i.values())
h.sent&&e++;for(let h of n.values())h.on&&a++;for(let h of[oe,ee,de]){if(h===de&&N.moving())return;let k=p-(h?p>>2:0);for(let R of[
...i.values()]){if(R.kind!==h||R.sent)continue;let q=R.flow;if(e>=k||q&&!q.on&&a>=g)break;q&&!q.on&&a++,q&&(q.on=c),R.sent=
R.tried=!0,e++,c.send(R.message())}}},U=(e,a)=>{let h={kind:e,...a};return i.set(a.ref,h),O(),h},S=(e,a)=>{i.delete(e.ref),
a&&e.flow&&!e.flow.known&&(e.flow.on=void 0),e.done(a),N.calm()},T=e=>c?.send({type:"detach",id:e}),m=e=>({id:e.id,epoch:e.
epoch||void 0,after:Math.max(e.last-(e.ended?1:0),0)}),E=e=>{e.asked&&i.delete(e.asked.ref),e.asked=void 0},x=e=>{E(e),e.
known=!0,e.paused=!1;let a=A(),h=()=>({type:"attach",ref:a,...m(e)});e.asked={kind:ee,ref:a,flow:e,message:h,done:()=>{}},
i.set(a,e.asked),O()},I=(e,a,h=!1)=>{n.get(e.id)===e&&(n.delete(e.id),e.failure=a,e.answered=!0,e.on=void 0,E(e),e.unwait(),
h||t.moved(e.id),e.wake(),N.calm(),O())},$=e=>{n.get(e.id)!==e||e.asked||(e.paused?e.full(ne/2)||x(e):e.on&&e.full(ne)&&
(T(e.id),e.on=void 0,e.paused=!0,O()))},L=(e,a)=>{E(e),e.epoch=a??"",e.known=e.answered=!0,e.paused=!1,e.pauses=0,d.add(
e)},z=(e,a)=>{let h=a.seq;d.add(e),e.ended&&h===e.last&&(e.end=se(e.epoch,a)),h===2&&!e.last&&e.add({type:"status",status:"\
queued",seq:1}),h>e.last+1?!e.asked&&++e.holes>De?I(e,b(e,"the server leaves out events")):e.asked||x(e):h>e.last&&(e.holes=
0,e.add(a)),e.end?I(e):$(e)},y=(e,a)=>{e.epoch&&e.epoch!==a.epoch&&e.skip({...a,reason:"recreated",oldest:1}),L(e,a.epoch),
e.last||e.add({...a,type:"status",status:"queued"})},C=(e,a)=>{if(e.epoch&&e.epoch!==a.epoch){e.skip({...a,reason:"recre\
ated",oldest:1}),x(e);return}if(L(e,a.epoch),!(!/ed$/.test(a.status??"")||a.status==="queued"||(a.last??0)>(a.after??0))){
if(e.ended)return I(e,b(e,"the server does not show the end of the request"));e.ended=!0,x(e)}},M=(e,a)=>{if(E(e),e.on=void 0,
!/^(SERVICE_UNAVAILABLE|RATE_LIMITED)$/.test(a.code))return I(e,a);e.unwait(),e.unwait=H(Math.max(a.retryAfter??0,Ne<<Math.
min(e.pauses++,Fe)),()=>{n.get(e.id)===e&&!e.on&&!e.asked&&x(e)})},N=o({pending:()=>n.size>0||[...i.values()].some(e=>e.
kind===oe),resume(){let e=new Map,a=0;for(let h of n.values())a+=48+h.id.length+h.epoch.length,h.known&&!h.paused&&a<qe&&
e.set(h,m(h));return e},adopt(e,{limits:a},h){c=e,p=a?.max_inflight||32,g=a?.max_attached||256;for(let k of n.values())h.
has(k)?(E(k),k.asked={kind:ee,ref:"",message:()=>({type:"pong"}),done:()=>{}},k.on=e):k.known&&!k.paused&&!k.asked&&x(k);
O()},dispatch(e){let{type:a,seq:h}=e,k=i.get(e.ref??""),R=n.get(e.request_id??""),q=e.error&&!h&&re(e.error,e.request_id);
if(a==="ping"?c?.send({type:"pong"}):q?k&&k.kind!==ee?S(k,q):R?.on&&(k||!e.ref)&&M(R,q):a==="acknowledgment"?(k&&S(k),k?.
flow?y(k.flow,e):R||T(e.request_id??"")):k&&k.kind!==ee&&(S(k),k.flow&&L(k.flow,"")),!(!R?.on||!R.known))if(a==="progres\
s")R.report(e),d.add(R);else if(a==="attached"||a==="gap"){if(R.asked?R.asked.ref!==(e.ref??""):a==="attached")return;if(a===
"attached")return C(R,e);R.skip(e),L(R,e.epoch)}else h&&a!=="acknowledgment"&&!(k?.kind===oe&&h!==R.last+1)&&z(R,e)},settle(){
let e=[...d];d.clear();for(let a of e)n.get(a.id)===a&&a.epoch&&t.moved(a.id,{epoch:a.epoch,after:a.last}),a.wake(),$(a);
O()},orphan(){c=void 0;for(let e of[...i.values()])e.sent=!1,e.kind===ee&&i.delete(e.ref);for(let e of n.values())e.on=e.
asked=void 0},fail(e){for(let a of[...n.values()])I(a,e,!0);for(let a of[...i.values()])S(a,e)}});return{ref:A,review:$,
ids:()=>[...n.keys()],join(e,{epoch:a="",after:h},k){let R=N.refusal();if(R)throw R;let q=n.get(e);if(q)q.users++,q.limit=
Math.max(q.limit,k);else{if(n.size>=ce)throw new D("RATE_LIMITED",`${ce} requests are pending already`);q=new X(e,h,k),q.
epoch=a,n.set(e,q)}return N.want(),q},leave(e){if(--e.users){!e.known&&![...i.values()].some(a=>a.flow===e)&&x(e);return}
e.end||e.failure||(e.on&&T(e.id),I(e,new D("CLOSED","detached from the request",{requestId:e.id})))},attach(e){e.users===
1&&x(e)},submit:(e,a,h,k)=>U(de,{ref:a,flow:e,done:k,message:()=>({type:"request",id:e.id,ref:a,text:h})}),cancel(e,a,h){
if(i.size>2*ce)return h(new D("RATE_LIMITED","too many calls are pending already"));let k=A();U(oe,{ref:k,done:h,message:()=>({
type:"cancel",id:e,ref:k,reason:a})}),N.want()},abandon(e){i.delete(e.ref),N.calm()}}}var je=36e5;function Q(o){return Math.min(Math.max(Number(o)||0,0),je)}function te(o){let t=new D("INTERNAL_ERROR",o);return{
error:t,stop:t}}function le(o){return o===408||o===425||o===429||o>=500}var $e=new Map([[400,"VALIDATION_ERROR"],[401,"U\
NAUTHORIZED"],[403,"FORBIDDEN"]]);function ue(o,t,n,i=$e.get(o)){return{error:new Error(t),floor:Q(n),denied:o===401,stop:le(
o)?void 0:new D(i||"SERVICE_UNAVAILABLE",`connection refused: ${t}`)}}function ye(o,t){let n=`WebSocket closed: ${o}${t&&
` ${t}`}`;if(o>=4e3)return ue(o-4e3,n,Number(/retry_after_ms\W*(\d+)/.exec(t)?.[1]));let i=new Error(n);if(o===1012||o===
1013)return{error:i,floor:o===1013?5e3:0,spread:5e3};let d=o===1009?"PAYLOAD_TOO_LARGE":o===1008?"FORBIDDEN":o===1002||o===
1003||o===1007||o===1010?"INTERNAL_ERROR":"";return d?{error:i,stop:new D(d,n)}:{error:i,foreign:!0}}var Pe=100,Ue=5;function Y(o,t){try{o?.(t)}catch(n){globalThis.reportError?globalThis.reportError(n):queueMicrotask(()=>{
throw n})}}function be(){let o,t,n=new Promise((i,d)=>{o=i,t=d});return n.catch(()=>{}),{promise:n,resolve:o,reject:t}}function fe(o,t){
let{id:n,encode:i,unseen:d,options:c}=t,{signal:p,onProgress:g,onOutput:l,onRestart:A,onGap:b}=c,O=l||A||b,U=i?0:c.after??
0,S=be(),T=be(),m,E,x,I,$,L=0,z=!1,y=!1,C,M=(r,u)=>{z||(z=!0,p?.removeEventListener("abort",k),x&&m.readers.delete(x),r?
(T.reject(r),S.reject(r)):(T.resolve(),S.resolve(u)),d&&N())},N=()=>{y||(y=!0,$?.(),I&&o.abandon(I),o.leave(m))},e=r=>{C??=
r,M(r),N(),m.wake()},a=r=>{r.type==="progress"?Y(g,r):r.type==="output"?Y(()=>l?.(r.data,r),void 0):r.type==="gap"?Y(b,r):
r.type==="running"&&r.attempt>1&&Y(A,r)},h=()=>{if(z||x)return;let r=x={...G,pos:O?G.pos:1/0};m.readers.add(r),r.wake=()=>{
for(let s;!z&&(s=m.take(r));)a(s);let u=m.end;if(!u||!m.read(r))m.failure&&M(m.failure);else if(u.failure||u.success)M(u.
failure,u.result);else{let s="the result says that the request did not succeed";M(new D("PROCESSING_FAILED",s,{details:{
result:u.result},requestId:n}))}},r.wake()},k=()=>{let r=p?.reason,u=new D("CANCELED","aborted by the caller",{requestId:n,
cause:r});u.name=r instanceof Error?r.name:"AbortError",!m.end&&!m.failure&&(I?I.tried:!$)&&o.cancel(n,u.message,()=>{}),
e(u)},R=(r,u)=>{$=void 0,!m.failure&&(I=o.submit(m,u,r,s=>{if(I=void 0,!s)T.resolve();else if(s.retryAfter&&/^(SERVICE_UNAVAILABLE|RATE_LIMITED)$/.
test(s.code)){let w=Q(Math.max(s.retryAfter,Pe<<Math.min(L++,Ue)));$=H(w*(1+Math.random()),()=>R(r,u))}else e(s)}))},q=o.
ref(),K;try{if(!/^(?!\.\.?$)[\w.~-]{1,128}$/.test(n)){let r=`id ${JSON.stringify(n)}: must be 1 to 128 of A-Z a-z 0-9 . \
_ ~ -, and not . or ..`;throw new D("VALIDATION_ERROR",r)}if(K=i?.(q),p?.aborted)throw p.reason;m=o.join(n,{after:U,epoch:i?
void 0:c.epoch},d?0:ne)}catch(r){E=D.is(r)?r:new D("VALIDATION_ERROR",`payload: ${r}`,{cause:r}),m=new X(n,0,0),m.failure=
E,y=!0}let G=m.reader(U);if(p?.aborted)k();else if(E)e(E);else{if(p?.addEventListener("abort",k),K)R(K,q);else{let r={...G,
pos:1/0};r.wake=()=>{m.answered&&(m.readers.delete(r),m.failure?T.reject(m.failure):T.resolve())},m.readers.add(r),o.attach(
m),r.wake()}(p||d||g||O)&&h()}let f=()=>(h(),S.promise);return{id:n,accepted:T.promise,get cursor(){return{epoch:m.epoch||
void 0,after:m.last}},then:(r,u)=>f().then(r,u),catch:r=>f().catch(r),finally:r=>f().finally(r),cancel:r=>T.promise.then(
()=>new Promise((u,s)=>{m.end?u():o.cancel(n,r,w=>w?s(w):u())}),u=>{if(u===C)throw u}),detach:()=>e(new D("CLOSED","deta\
ched from the request",{requestId:n})),[Symbol.asyncIterator]:()=>We(o,m,{...G},()=>C)}}function We(o,t,n,i){let d=!1,c=Promise.
resolve();t.readers.add(n);let p=()=>{d=!0,t.readers.delete(n),o.review(t)},g=()=>new Promise((l,A)=>{n.wake=()=>{let b=d||
i()?void 0:t.take(n),O=d||b&&!b.failure?void 0:i()??b?.failure??t.failure;!b&&!O&&!d&&!t.read(n)||(n.wake=void 0,!b||b.failure||
b.type==="complete"?p():o.review(t),O?A(O):l(b?{value:b}:{done:!0,value:void 0}))},n.wake()});return{next(){let l=c.then(
g);return c=l.catch(()=>{}),l},async return(){return p(),n.wake?.(),{done:!0,value:void 0}}}}var He=500,ke=2e4,Ve=5e3,ze=1e4;function ve(o,t,n,i){let d,c,p,g=!1,l=0,A=!1,b=0,O=0,U,S,T=!1,m=!1,E,x={phase:"idle",transport:void 0,
attempt:0,error:void 0},I,$,L=(f,r,u=x.transport)=>{let s=f==="reconnecting"?l:0,w=x;w.phase===f&&w.transport===u&&w.attempt===
s&&w.error===r||(x={phase:f,transport:u,attempt:s,error:r},i(x,w))},z=()=>globalThis.document,y=f=>{p?.(),O=f,p=H(Math.max(
f-Date.now(),0),()=>{p=void 0,o.pending()?T||l&&z()?.hidden?m=!0:e():C()})},C=()=>{p?.(),p=void 0,m=!1,g&&d&&M(d,"idle"),
g=!1,!d&&!c&&!E&&x.phase!=="idle"&&L("idle")},M=(f,r)=>{f.over=!0,f.unwait(),f.conn?.close(r),f===c&&(c=void 0),f===d&&(d=
void 0,g=!1,o.orphan())},N=()=>{if(!$&&t.getToken){let f=t.getToken,r=new AbortController;$=new Promise((s,w)=>{let _=H(
ze,()=>{r.abort(),w(new Error("getToken took longer than 10 s"))});Promise.resolve(r.signal).then(f).then(s,w).finally(_)}).
finally(()=>{$=void 0})}return $??Promise.resolve(t.token)},e=async()=>{m=!1;let f=n.next(),r={over:!1,transport:f,resumed:new Map,
welcomed:0,unwait:()=>{}};c=r,d||L(l?"reconnecting":"connecting",l?S:void 0,f.name);try{r.token=await N()??void 0}catch(u){
let s=u instanceof Error?u:new Error(String(u)),w=D.is(u)&&(u.code==="UNAUTHORIZED"||u.code==="FORBIDDEN")?u:void 0;k(r,
{error:s,stop:w});return}if(!r.over){r.unwait=H(f.patience,()=>k(r,{error:new Error("the server sent no welcome in time"),
foreign:!0,late:!0})),r.resumed=o.resume();try{r.conn=f.dial({token:r.token,resume:[...r.resumed.values()],receive:u=>a(
r,u),lost:u=>k(r,u)})}catch(u){k(r,D.is(u)?{error:u,stop:u}:{error:u,foreign:!0})}}},a=(f,r)=>{for(let u of r){if(f.over)
break;if(u.type==="welcome"&&f===c)h(f,u);else{if(f!==d)continue;u.type==="goaway"?R(u):u.type==="auth_expiring"?q(f):u.
type==="alive"?(f.welcomed||=Date.now(),L("open",void 0,u.transport)):o.dispatch(u)}}f===d&&o.settle()},h=(f,r)=>{if(r.v!==
1){k(f,te("the server speaks another version of the protocol"));return}f.unwait(),r.unproven||(f.welcomed=Date.now()),d&&
M(d,"moved"),c=void 0,d=f,o.adopt(f.conn,r,f.resumed),!r.unproven&&L("open",void 0,r.transport)},k=(f,r)=>{if(f.over)return;
f.over=!0,f.unwait();let u=f===d;r=n.ended(f.transport,f.welcomed>0,r),M(f,"lost"),f.welcomed&&Date.now()-f.welcomed>=Ve&&
(l=0,A=!1),S=r.error;let s=r.stop;if(r.denied&&!A&&(s=void 0),A=!!r.denied,u&&(c||p&&!s)){L("reconnecting",r.error);return}
let w=Date.now(),_=globalThis.navigator?.onLine===!1,v=_?ke:Math.min(He*2**l,ke);b=w+Q(r.floor),l++;let F=b+Math.random()*
Math.max(v,r.spread??0)+(_?v:0);s?(U=s,O=F,d&&M(d,"gave up"),o.fail(s),L("closed",s)):o.pending()?(d||L("reconnecting",r.
error),y(F)):(l===1&&(l=0),O=l?F:b,C())},R=f=>{g||(g=!0,y(Date.now()+Q(f.reconnect_in_ms)))},q=f=>{t.getToken&&N().then(
r=>{f.over||!r||r===f.token||(f.token=r,f.conn?.send({type:"auth",token:r}))},()=>{})},K=()=>{E||T||(d&&!g?d.conn?.probe():
!c&&o.pending()&&y(Math.min(Math.max(b,Date.now()),O)))},G=()=>{if(I||!globalThis.addEventListener)return;let r=[],u=(w,_,v)=>{
w.addEventListener(_,v),r.push(()=>w.removeEventListener(_,v))};u(globalThis,"online",K),u(globalThis,"pagehide",()=>{T=
!0,c&&M(c,"page hidden"),d&&(M(d,"page hidden"),o.pending()?L("reconnecting"):L("idle"))}),u(globalThis,"pageshow",()=>{
T=!1,K()});let s=z();s&&u(s,"visibilitychange",()=>{s.hidden||(T=!1,K())}),I=()=>{for(let w of r)w()}};return{want(){E||
d&&!g||c||p||m||(U=void 0,G(),O>Date.now()&&L("reconnecting",S),y(O))},calm(){!o.pending()&&(p||m)&&C()},moving:()=>g,refusal:()=>E??
(U&&Date.now()<O?U:void 0),state:()=>x,reconnect(){E||(l=b=O=0,U=void 0,T=!1,c&&M(c,"reconnect"),d&&M(d,"reconnect"),o.pending()?
(L("connecting"),y(0)):C())},close(){if(E)return;E=new D("CLOSED","the client is closed"),p?.(),p=void 0,I?.();let f=[c,
d];c=d=void 0,o.orphan(),o.fail(E);for(let r of f)r&&M(r,"done");L("closed",E)}}}var Je=250;function Ee(o){let t=`${typeof o=="string"?o:"streamer"}:pending`,n,i,d=!1,c=()=>{if(i)return i;i=new Map;try{
n=typeof o=="string"?globalThis.sessionStorage:o;for(let[g,l,A]of JSON.parse(n?.getItem(t)??"[]"))i.set(String(g),{epoch:String(
l),after:Number(A)||0})}catch{}return i},p=()=>{d=!1;try{c().size?n?.setItem(t,JSON.stringify([...c()].map(([g,l])=>[g,l.
epoch,l.after]))):n?.removeItem(t)}catch{}};return{ids:()=>o?[...c().keys()]:[],cursor:g=>o?c().get(g):void 0,moved(g,l){
if(!o)return;let A=c().has(g);l?c().set(g,l):c().delete(g),A!==!!l?p():l&&!d&&(d=!0,H(Je,p))}}}var ie=class{#e;#t;#n;#r=new Set;constructor(t,n){let{onConnect:i,onDisconnect:d,onState:c}=t;this.#n=Ee(t.storage);let p;
this.#e=we(g=>(p=ve(g,t,n,(l,A)=>{let b=l.phase==="open";b&&A.phase!=="open"&&Y(i,void 0),!b&&A.phase==="open"&&Y(d,{error:l.
error,reconnecting:/ing$/.test(l.phase)}),Y(c,l);for(let O of[...this.#r])Y(O,l)}),p),this.#n),this.#t=p}get state(){return this.#t.
state()}request(t,...[n,i]){return this.#s(t,n,i,!0).finally()}submit(t,...[n,i]){return this.#s(t,n,i)}attach(t,n={}){let i=n.
resume&&this.#n.cursor(t);return fe(this.#e,{id:t,options:{...i,...n}})}pending(){return[...new Set([...this.#n.ids(),...this.#e.
ids()])]}subscribe(t){return this.#r.add(t),()=>{this.#r.delete(t)}}reconnect(){this.#t.reconnect()}close(){this.#t.close()}#s(t,n,i={},d=!1){
let{id:c=Ke(),metadata:p,timeout:g}=i,l=A=>JSON.stringify({type:"request",id:c,ref:A,action:t,payload:n,metadata:p,timeout_ms:g&&
Math.ceil(g)});return fe(this.#e,{id:c,encode:l,unseen:d,options:i})}};function Ke(){return[...crypto.getRandomValues(new Uint8Array(
16))].map(o=>o.toString(16).padStart(2,"0")).join("")}async function Ae(o){let t=globalThis.navigator?.locks;if(!t)return()=>{};for(let n=0;n<3;n++){let i=await new Promise(d=>{
t.request(`streamer ${o} ${n}`,{ifAvailable:!0},c=>c?new Promise(p=>d(p)):d(void 0)).catch(()=>d(()=>{}))});if(i)return i}}function Se(o){let t=new TextDecoder,n="",i=[],d=0,c=!1;return p=>{let g=t.decode(p,{stream:!0});if(!g)return;c&&g[0]===
`
`&&(g=g.slice(1)),c=g?g.endsWith("\r"):!1;let l=g.split(/\r\n|\r|\n/);l[0]=n+l[0],n=l.pop()??"";for(let A of l){let b=/^data(?:: ?(.*))?$/s.
exec(A);if(b){let O=b[1]??"";i.push(O),d+=O.length}else!A&&i.length&&(o(i.join(`
`)),i=[],d=0)}if(n.length+d>33554432)throw new Error("the server sent an event that is too large")}}var Oe=5e3,Be=25e3,Ge=1e3,Ze=3,Ye=5e3,Ce=20,Qe=9e4,Xe=25,et=3e5,tt={max_inflight:8,max_attached:64};function Re(o,t,n){let i=0,
d=n==="poll"?1/0:0,c=()=>Date.now()<d,p=()=>(n||(d=Date.now()+et),!n);return{name:n??"sse",patience:Oe,dial:({token:l,resume:A,
receive:b,lost:O})=>{let U=t??globalThis.fetch,S=new Map,T=new Set,m=!1,E,x,I=!1,$,L,z=()=>{m=!0,$?.(),E?.abort(),x?.abort(),
L?.()},y=s=>{if(!m){z();for(let w of T)w.abort();O(s)}},C=s=>y({error:s instanceof Error?s:new Error(String(s)),foreign:!0}),
M=()=>b([{type:"alive",transport:c()?"poll":"sse"}]),N=(s,w,_,v)=>U(new URL(s,o).href,{...v,headers:{..._,...l&&{authorization:`\
Bearer ${l}`}},signal:w}),e=async(s,w)=>{let _=await s.text();if(m)return;let v={code:"",message:""};try{v=JSON.parse(_)}catch{}
let{code:F,detail:j,retry_after_ms:P}=v,{status:V}=s;if(V<400||!(_||s.headers.has("content-length")))throw new Error("th\
e answer was cut off");if(F&&!(V===401&&!v.seq)&&!(w&&le(V)))return{...v,message:j??""};let J=P??Number(s.headers.get("r\
etry-after"))*1e3;y({...ue(V,`${V} ${j??""}`,J,F),foreign:!F})},a=async(s,w,_,v)=>{let F=H(Qe,()=>C(new Error("the serve\
r did not answer in time"))),j=new AbortController;T.add(j);let P=v?{"content-type":"application/json",prefer:"respond-a\
sync"}:{};try{let V=await N(_,j.signal,P,{method:w,...v&&{body:v}}),J;if(V.ok){let B=await V.text();if(J=JSON.parse(B),m)
return;v?J.type==="acknowledgment"&&(S.set(s.id,{epoch:J.epoch??"",after:1}),h()):J={type:"canceled"},J.size=B.length}else{
let B=await e(V,!1);if(!B)return;J={type:"error",error:B,seq:B.seq}}M(),b([{...J,request_id:s.id,ref:s.ref}])}catch(V){C(
V)}finally{F(),T.delete(j)}},h=(s=Xe)=>{m||(x?I=!0:($?.(),$=H(s,k)))},k=async()=>{$=void 0,I=!1;let s=new AbortController;
if(x=s,S.size&&!L&&(L=await Ae(new URL(o).origin),m))return L?.();S.size?c()||!L?u(s):r(s):(x=void 0,E?.abort(),E=void 0,
L?.(),L=void 0,I&&h())},R=s=>{x===s&&(x=void 0,E!==s&&E?.abort(),E=s,M(),I&&h())},q=()=>`events?${[...S].map(([s,w])=>`r\
=${encodeURIComponent(`${s}:${w.epoch}:${w.after}`.replace(/::0$/,""))}`).join("&")}`,K=(s,w)=>{let _=[];for(let v of s){
let F=v.request_id??"",j=S.get(F);if(!j||w.get(F)!==j)continue;let P=v.type==="error"&&!v.seq;j.ref&&(P||v.type==="attac\
hed"||v.type==="gap")&&(v.ref=j.ref,j.ref=void 0),v.epoch&&(j.epoch=v.epoch),v.type==="gap"&&(j.after=Math.max(v.oldest??
1,1)-1),v.seq&&(j.after=v.seq),(P||v.seq&&/^(complete|response|error)$/.test(v.type))&&S.delete(F),_.push(v)}_.length&&b(
_)},G=s=>{for(let[w,_]of s){let{epoch:v,after:F}=_;K([{type:"attached",request_id:w,epoch:v,status:"completed",last:F,after:F}],
s),S.get(w)===_&&S.delete(w)}m||h()},f=async(s,w)=>{let _=await e(s,!0),v=w.keys().next().value;_&&v!==void 0&&K([{type:"\
error",request_id:v,error:_}],w)},r=async s=>{let w=new Map(S),_=Date.now(),v=!1,F=!1,j=!1,P=[],V=H(Oe,()=>{j=!0,s.abort()}),
J=Se(W=>P.push(Object.assign(JSON.parse(W),{size:W.length})));try{let W=await N(q(),s.signal,{accept:"text/event-stream"});
if(W.status===204||!W.ok){if(V(),W.ok?G(w):await f(W,w),m)return;R(s),E=void 0,h(0);return}if(!W.headers.get("content-ty\
pe")?.startsWith("text/event-stream")||!W.body)throw new Error("the server answered with something else than an event st\
ream");let Me=W.body.getReader();for(;;){let me=await Me.read();if(m||s.signal.aborted||me.done)break;V(),V=H(Be,()=>{j=
!0,s.abort()}),F||(F=!0,R(s)),P=[],J(me.value);for(let ae of P)ae.type==="end"&&(v=!0),ae.type==="goaway"&&h(Q(ae.reconnect_in_ms));
K(P,w)}}catch(W){if(m)return;W instanceof SyntaxError?y(te("the server sent a message that makes no sense")):s.signal.aborted||
(P=[{type:"failed",message:String(W)}])}finally{V()}if(m||s!==E&&s!==x)return;let B=P[0]?.type==="failed"?P[0].message:void 0;
if(s===E&&(E=void 0),v){i=0,h();return}let Z=Date.now()-_;i=Z<Ge?i+1:j?i:0,(j&&!F||i>=Ze)&&p()?(i=0,x=void 0,h(0)):F&&Z>=
Ye&&!j&&!B?h(0):y({error:new Error(B??(j?"nothing heard from the server for too long":"the stream ended early")),foreign:!F})},
u=async s=>{let w=new Map(S),_="";try{for(;!m&&S.size;){let v=Date.now(),F=L&&_,j=H(Ce*1e3+1e4,()=>C(new Error("the serv\
er did not answer in time"))),P,V;try{if(P=await N(q(),s.signal,{accept:"application/json",...F&&{prefer:`wait=${Ce}`},..._&&
{"if-none-match":_}}),P.status!==304&&!P.ok){await f(P,w);break}V=await P.text()}finally{j()}if(m||s.signal.aborted)return;
R(s),_=P.headers.get("etag")??"";let J=!1;if(P.status!==304){let Z=JSON.parse(V);for(let W of Z.events)W.size=256;if(J=Z.
events.some(W=>W.type==="attached"?(W.last??0)>(W.after??0):W.type!=="progress"),K(Z.events,w),Z.done&&!J){G(w);break}}if(m||
I||x)return;let B=500+Math.random()*500;if(!J&&Date.now()-v<B&&await new Promise(Z=>H(B,Z)),m||s!==E)return;if(!L||!c()&&
!n)break}if(m||s.signal.aborted)return;R(s),E=void 0,h(0)}catch(v){!m&&!s.signal.aborted&&C(v)}};for(let{id:s,epoch:w,after:_}of A)
S.set(s,{epoch:w??"",after:_});return queueMicrotask(()=>{m||(b([{type:"welcome",v:1,limits:tt,unproven:!0}]),S.size&&h(
0))}),{send(s){s.type==="request"?a(s,"POST","requests",s.text):s.type==="cancel"?a(s,"DELETE",`requests/${encodeURIComponent(
s.id)}${s.reason?`?reason=${encodeURIComponent(s.reason)}`:""}`):s.type==="attach"?(S.set(s.id,{epoch:s.epoch??"",after:s.
after,ref:s.ref}),h()):s.type==="detach"&&S.delete(s.id)&&h()},probe:()=>h(0),close:()=>m||z()}}}}var xe=32768,_e=3e5,nt=1e4,rt=5e3;function Te(o,t){return{name:"websocket",patience:1e4,dial(n){let i=t??globalThis.WebSocket;
if(i)return st(o,i,n);throw new D("VALIDATION_ERROR","there is no WebSocket here: give one with the option WebSocket")}}}
function st(o,t,{token:n,resume:i,receive:d,lost:c}){let p=!1,g=!1,l=0,A=[],b=0,O=0,U=0,S=()=>{},T=new TextEncoder,m=y=>T.
encode(y).length,E=new t(o,["streamer.v1"]),x=(y,C)=>{p=!0,S(),E.close(y,C)},I=y=>{p||(x(),c(y))},$=y=>{S(),S=H(y,()=>{let C=O+
b-Date.now();C>0?$(C):I({error:new Error("nothing heard from the server for too long")})})},L=()=>{let y="",C=0;for(let M of A){
let N=m(M)+1;y&&(!g||C+N>Math.min(l||xe,xe))&&(E.send(y),y="",C=0),y+=y?`
${M}`:M,C+=N}A=[],y&&E.send(y)},z=y=>{A.push(y)===1&&queueMicrotask(()=>p||L())};return E.onopen=()=>{p||z(JSON.stringify(
{type:"hello",v:1,token:n,caps:["batch"],client:"streamer-ts/2",resume:i.length?i:void 0}))},E.onmessage=({data:y})=>{if(p)
return;O=Date.now(),U++;let C;try{C=String(y).split(`
`).map(N=>Object.assign(JSON.parse(N),{size:N.length}))}catch{I(te("the server sent a message that makes no sense"));return}
let M=C[0];!b&&M?.type==="welcome"&&(g=M.caps?.includes("batch")??!1,l=M.limits?.max_message_bytes??0,b=Math.min(M.ping_interval_ms||
_e,_e)+nt,M.transport="websocket",$(b)),d(C)},E.onclose=({code:y,reason:C})=>I(ye(y,C)),E.onerror=()=>{},{send(y){let C=y.
type==="request"?y.text:JSON.stringify(y),M=l&&C.length*3>l?m(C):0;if(M<=l)z(C);else if("ref"in y){let N={code:"PAYLOAD_\
TOO_LARGE",message:`the request is ${M} bytes, the server takes ${l}`};queueMicrotask(()=>p||d([{type:"error",request_id:y.
id,ref:y.ref,error:N}]))}},probe(){z('{"type":"ping"}'),S();let y=U;S=H(rt,()=>{U>y?$(b):I({error:new Error("the server \
did not answer")})})},close(y){p||(E.readyState===1&&L(),x(1e3,y))}}}var ot=3e5,pe=2,Le=class extends ie{constructor(t,n={}){super(n,it(he(t),n))}};function it(o,t){let n=t.transport==="aut\
o"?void 0:t.transport,i=o.protocol.startsWith("http"),d=U=>o.href.replace(/^(ws|http)/,U),c=new URL(t.http?.replace(/\/*$/,
"/")??".",d("http")).href,p=Te(d("ws"),t.WebSocket),g=Re(c,t.fetch,n==="websocket"?void 0:n),l=!1,A=0,b=0,O=!1;return{next(){
return n?n==="websocket"?p:g:i||!(t.WebSocket??globalThis.WebSocket)?g:(b&&Date.now()-b>ot&&(b=0,A=pe-1),p.patience=l?1e4:
5e3,b?g:p)},ended(U,S,T){return n||i?T:U===p?(l||=S,!l&&T.foreign&&(A+=T.late?pe:1,A>=pe&&(b=Date.now(),O=!1)),T):(O||=S,
O||!T.foreign?T:(b=A=0,{...T,stop:void 0,denied:!1}))}}}export{Le as StreamerClient,D as StreamerError};
